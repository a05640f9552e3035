"""One small source of every published layout, written by hand after the columns that its publisher documents."""

import gzip
import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import polars as pl

from msr_adapter.config.schema import (
    AmazonSourceConfig,
    ColumnsConfig,
    HMSourceConfig,
    HubTableConfig,
    HuggingFaceSourceConfig,
    KuaiRecSourceConfig,
    MicroLensSourceConfig,
    MINDSourceConfig,
    MMRecSourceConfig,
    MovieLensSourceConfig,
    NetflixSourceConfig,
    OfficialAmazonSourceConfig,
    PixelRecSourceConfig,
    RecBoleSourceConfig,
    SourceConfig,
    SqlSourceConfig,
    TableSourceConfig,
)

LOG_ROWS: dict[str, list[Any]] = {
    "user": ["007", "007", "8"], "item": ["0042", "43", "0042"], "time": [1_700_000_000, 1_700_000_060, 1_700_000_001]
}  # fmt: skip
ITEM_ROWS: dict[str, list[Any]] = {"item": ["0042", "43"], "title": ["Forty-two", None]}


def put(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(encoding), mtime=0) if path.suffix == ".gz" else text.encode(encoding))
    return path


def lines(*objects: dict[str, Any]) -> str:
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in objects)


def table_csv(folder: Path) -> SourceConfig:
    log = "who,item_id,when,stars,split\nann,007,2024-01-31,5,train\nann,8,2024-02-01T10:30:00Z,4.5,Test\n"
    log += "bob,8,2024-02-02 09:00,1,valid\n\nbob,007,2024-02-03,4,validation\n"
    items = (
        'item_id,name,description,categories,image_url\n007,"Spoon, big",For soup.,Kitchen,https://shop.example/7.jpg\n'
    )
    items += "8,,,,\n007,Again,,,\n"
    columns = ColumnsConfig(user="who", timestamp="when", split="split")
    return TableSourceConfig(
        kind="table", interactions=put(folder / "log.csv", log), items=put(folder / "items.csv", items),
        columns=columns, min_rating=4,
    )  # fmt: skip


def table_jsonl_gz(folder: Path) -> SourceConfig:
    log = lines(*({"userID": u, "itemID": i, "timestamp": 1_700_000_000_000 + n, "extra": {"deep": [1]}}
                  for n, (u, i) in enumerate([("a", 1), ("a", "02"), ("b", 1)])))  # fmt: skip
    items = lines(
        {
            "itemID": 1,
            "title": "[Used] Lamp",
            "description": ["bright", None, 'a "desk" lamp'],
            "genres": ["Home", "Light"],
        },
        {"itemID": "02", "title": ["Two", "titles"], "description": [], "image": ["a.jpg", "b.jpg"]},
    )
    return TableSourceConfig(
        kind="table", interactions=put(folder / "log.jsonl.gz", log), items=put(folder / "items.jsonl.gz", items)
    )


def table_parquet(folder: Path) -> SourceConfig:
    """Typed columns: numbers as ids, moments, lists, bytes; the log in two files of a folder."""
    (folder / "log").mkdir()
    time = pl.Series("time", LOG_ROWS["time"]).cast(pl.Int64) * 1000
    log = pl.DataFrame({"user": [7.0, 7.0, 8.0], "item": [42, 43, 42], "time": time.cast(pl.Datetime("ms"))})
    log.head(2).write_parquet(folder / "log" / "part-0.parquet")
    log.tail(1).write_parquet(folder / "log" / "part-1.parquet")
    items = pl.DataFrame(
        {"item": [42, 43], "title": ["Forty-two", None], "text": [["one", "two"], []], "category": [["A", "B"], None],
         "image": [b"\x89PNG", None]}
    )  # fmt: skip
    items.write_parquet(folder / "items.parquet")
    return TableSourceConfig(kind="table", interactions=folder / "log", items=folder / "items.parquet")


def microlens_csv(folder: Path) -> SourceConfig:
    pairs = put(folder / "MicroLens-50k_pairs.csv", "user,item,timestamp\n1,19,1583378629552\n1,7,1583379000000\n")
    titles = 'item,title\n7,"a ""b"", c # d"\n19,plain\n'
    return MicroLensSourceConfig(kind="microlens", pairs=pairs, titles=put(folder / "MicroLens-50k_titles.csv", titles))


def microlens_tsv(folder: Path) -> SourceConfig:
    pairs = put(folder / "MicroLens-50k_pairs.tsv", "1\t19 7 30\n2\t7 19\n")
    return MicroLensSourceConfig(
        kind="microlens", pairs=pairs, titles=put(folder / "t.csv", "item,title\n7,a\n19,b\n30,c\n")
    )


def microlens_100k(folder: Path) -> SourceConfig:
    """No header above the titles, commas unquoted, quotation marks as they come."""
    pairs = put(folder / "MicroLens-100k_pairs.csv", "user,item,timestamp\n1,19,1583378629552\n1,7,1583379000000\n")
    titles = '7,one, two and "three"\n19,"never closed, 20\n30,"closed, with ""marks"""\n31\n'
    return MicroLensSourceConfig(
        kind="microlens", pairs=pairs, titles=put(folder / "MicroLens-100k_title_en.csv", titles)
    )


def review(user: str, item: str, time: int, rating: float = 5.0, key: str = "timestamp") -> dict[str, Any]:
    return {
        "rating": rating, "title": "Nice", "text": "Good", "images": [], "asin": "X" + item, "parent_asin": item,
        "user_id": user, key: time, "helpful_vote": 0, "verified_purchase": True,
    }  # fmt: skip


def meta_lines() -> str:
    image = {"thumb": "http://i/t.jpg", "large": "http://i/other.jpg", "variant": "PT01", "hi_res": None}
    main = {"thumb": "http://i/t2.jpg", "large": "http://i/main.jpg", "variant": "MAIN", "hi_res": "http://i/hi.jpg"}
    return lines(
        {"main_category": "Video Games", "title": "Zelda", "average_rating": 4.8, "rating_number": 3, "price": 59.9,
         "features": ["Open world", "One player"], "description": ["A hero", "wakes up."], "images": [image, main],
         "videos": [], "store": None, "categories": ["Video Games", "Switch"], "details": {"Rated": "E"},
         "parent_asin": "B001", "bought_together": None},
        {"main_category": "Video Games", "title": None, "features": [], "description": "Just text",
         "images": {"thumb": ["http://i/a.jpg"], "large": ["http://i/b.jpg"], "variant": ["MAIN"], "hi_res": [None]},
         "categories": [], "details": {}, "parent_asin": "B002"},
        {"main_category": None, "title": "[Not a list] Pad", "features": None, "description": [], "images": [],
         "categories": None, "parent_asin": "B003"},
    )  # fmt: skip


def amazon_jsonl(folder: Path) -> SourceConfig:
    first = review("AE2", "B001", 1_600_000_500_000), review("AE2", "B002", 1_600_000_000_000)
    reviews = lines(*first, review("AE3", "B001", 1_600_000_000_000, 2.0), review("AE2", "B001", 1_600_000_100_000))
    return AmazonSourceConfig(
        kind="amazon-2023", reviews=put(folder / "Video_Games.jsonl", reviews),
        meta=put(folder / "meta_Video_Games.jsonl", meta_lines()), min_rating=3,
    )  # fmt: skip


def amazon_gz(folder: Path) -> SourceConfig:
    reviews = lines(review("AE2", "B003", 1_600_000_500_000, key="sortTimestamp"))
    return AmazonSourceConfig(
        kind="amazon-2023", reviews=put(folder / "Video_Games.jsonl.gz", reviews),
        meta=put(folder / "meta_Video_Games.jsonl.gz", meta_lines()),
    )  # fmt: skip


def amazon_benchmark(folder: Path) -> SourceConfig:
    rows = "user_id,parent_asin,rating,timestamp,history\nAE2,B002,4.0,1600000500000,B001 B003\n"
    return AmazonSourceConfig(kind="amazon-2023", reviews=put(folder / "Video_Games.test.csv", rows))


def official(folder: Path, *, maps: bool = True, meta: bool = True) -> SourceConfig:
    """Separators disagree, negatives begin with a blank, an item repeats, and no order is that of time."""
    put(folder / "Toys_user_items_negs_train.csv", "0\t2,0,1\t 3, 4\n2\t1,2,1\t3,4\n")
    put(folder / "Toys_user_items_negs_test.csv", "1\t0, 2\t3,4\n")
    put(folder / "Toys_i_map.tsv", "original\titem_id\nB001\t0\nB002\t1\nB009\t2\nB010\t3\nB011\t4\n")
    if maps:
        put(folder / "Toys_u_map.tsv", "original\tuser_id\nAEA\t0\nAEB\t1\nAEC\t2\n")
    path = put(folder / "meta_Toys.jsonl", meta_lines()) if meta else None
    return OfficialAmazonSourceConfig(kind="mllm-msr-amazon", folder=folder, meta=path)


def movielens_100k(folder: Path) -> SourceConfig:
    put(folder / "u.data", "196\t242\t3\t881250949\n186\t302\t3\t891717742\n196\t302\t1\t881250950\n")
    flags = ["0|" * 18 + "0", "0|" * 5 + "1|" + "0|" * 10 + "1|0|0"]
    items = f"242|Léon (1994)|24-Jan-1997||http://imdb/1|{flags[1]}\n302|L.A. Story (1991)||||{flags[0]}\n"
    put(folder / "u.item", items, "latin-1")
    return MovieLensSourceConfig(kind="movielens", folder=folder)


def movielens_1m(folder: Path) -> SourceConfig:
    put(folder / "ratings.dat", "1::1193::5::978300760\n1::661::3::978302109\n2::1193::2.5::978298413\n")
    put(
        folder / "movies.dat",
        "661::Misérables, Les: Part 2 (1995)::Drama|Musical\n1193::One Flew (1975)::Drama\n",
        "latin-1",
    )
    return MovieLensSourceConfig(kind="movielens", folder=folder, min_rating=3)


def movielens_20m(folder: Path) -> SourceConfig:
    put(folder / "ratings.csv", "userId,movieId,rating,timestamp\n1,2,3.5,1112486027\n1,29,3.5,1112484676\n")
    put(
        folder / "movies.csv",
        'movieId,title,genres\n2,Jumanji (1995),Adventure|Children\n29,"City, The (1995)",(no genres listed)\n',
    )
    return MovieLensSourceConfig(kind="movielens", folder=folder)


def recbole(folder: Path) -> SourceConfig:
    log = put(
        folder / "ml.inter", "user_id:token\titem_id:token\trating:float\ttimestamp:float\n196\t0242\t3\t881250949\n"
    )
    items = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    items += '0242\tKolya "the kid"\t1996\tComedy Drama\n'
    return RecBoleSourceConfig(kind="recbole", interactions=log, items=put(folder / "ml.item", items), min_rating=2)


def mmrec(folder: Path) -> SourceConfig:
    log = "userID\titemID\trating\ttimestamp\tx_label\n0\t5\t5.0\t1370476800\t0\n"
    log += "0\t6\t5.0\t1370476801\t1\n0\t7\t4.0\t1370476802\t2\n"
    items = "itemID\tasin\ttitle\tdescription\n5\tB5\tDuck\tYellow\n6\tB6\tBear\t\n7\tB7\tCat\t\n"
    return MMRecSourceConfig(
        kind="mmrec", interactions=put(folder / "baby.inter", log), items=put(folder / "items.tsv", items)
    )


def pixelrec(folder: Path) -> SourceConfig:
    log = put(folder / "Pixel200K.csv", "item_id,user_id,timestamp\ni192714,u1,1637150735\ni5,u1,1637150736\n")
    items = "item_id,view_number,comment_number,thumbup_number,share_number,coin_number,favorite_number,barrage_number,"
    items += 'title,tag,description\ni192714,799668.0,739.0,8050.0,220.0,84.0,1049.0,510.0,"A turtle, mine",Pets,"Two\n'
    items += 'lines"\n'
    items += "i5,1.0,,,,,,,Sea,,\n"
    return PixelRecSourceConfig(kind="pixelrec", interactions=log, items=put(folder / "item_info.csv", items))


BEHAVIORS = (
    "1\tU1\t11/15/2019 9:05:58 AM\tN1 N2\tN3-1 N4-0 N5-0\n"
    "2\tU1\t11/15/2019 12:00:01 AM\tN1 N2\tN6-0 N7-1 N8-1\n"
    "3\tU2\t11/16/2019 1:00:00 PM\t\tN3-0 N4-1\n"
    "4\tU2\t11/16/2019 1:00:00 PM\t\tN9-0 N5-0\n"
)
"""As MIND writes them: U1's second row is the earlier one, U2 has no history and clicked nothing in row 4."""


def mind(folder: Path) -> SourceConfig:
    (folder / "behaviors.tsv").write_text(BEHAVIORS, encoding="utf-8")
    news = [
        f"N{n}\tsports\tgolf\tTitle {n}\t{'' if n == 3 else f'Abstract {n}'}\thttps://x/{n}\t[]\t[]"
        for n in range(1, 10)
    ]
    (folder / "news.tsv").write_text("\n".join(news) + "\n", encoding="utf-8")
    return MINDSourceConfig(kind="mind", folder=folder)


def netflix(folder: Path) -> SourceConfig:
    put(folder / "combined_data_1.txt", "1:\n1488844,3,2005-09-06\n822109,5,2005-05-13\n8:\n1488844,4,2005-12-26\n")
    put(folder / "combined_data_2.txt", "4500:\n822109,1,2005-10-19\n")
    titles = "1,2003,Dinosaur Planet\n8,2004,What the #$*! Do We Know!?\n4500,NULL,Amélie, the film\n9,1999,Other\n"
    put(folder / "movie_titles.csv", titles, "latin-1")
    return NetflixSourceConfig(kind="netflix", folder=folder, min_rating=3)


def sql(folder: Path) -> SourceConfig:
    folder.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(folder / "shop.db") as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS events (user_id TEXT, item_id TEXT, ts INTEGER)")
        connection.execute("CREATE TABLE IF NOT EXISTS goods (item_id TEXT, title TEXT)")
        connection.execute("DELETE FROM events")
        connection.execute("DELETE FROM goods")
        connection.executemany("INSERT INTO events VALUES (?, ?, ?)", zip(*LOG_ROWS.values(), strict=True))
        connection.executemany("INSERT INTO goods VALUES (?, ?)", zip(*ITEM_ROWS.values(), strict=True))
    connection.close()
    os.environ["MSR_TESTS_SHOP"] = f"sqlite:///{folder / 'shop.db'}"
    queries = {"interactions": "SELECT * FROM events", "items": "SELECT * FROM goods"}
    return SqlSourceConfig.model_validate({"kind": "sql", "url_env": "MSR_TESTS_SHOP", **queries})


def hm(folder: Path) -> SourceConfig:
    log = "t_dat,customer_id,article_id,price,sales_channel_id\n2018-09-20,000058a1,0663713001,0.0508,2\n"
    log += "2018-09-20,000058a1,0541518023,0.0305,2\n2018-09-24,00007d2d,0663713001,0.0152,1\n"
    items = "article_id,product_code,prod_name,product_type_no,product_type_name,detail_desc\n"
    items += '0663713001,0663713,Atlanta Push Body,283,Underwear body,"Lace push-up body, lined."\n'
    items += "0541518023,0541518,Rae Push,306,Bra,\n"
    return HMSourceConfig(
        kind="hm",
        transactions=put(folder / "transactions_train.csv", log),
        articles=put(folder / "articles.csv", items),
    )


def kuairec(folder: Path) -> SourceConfig:
    log = "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n"
    log += "14,148,4381,6067,2020-07-05 05:27:48.378,20200705.0,1593898068.378,0.722\n"
    log += "14,183,11635,6100,,,,1.907\n19,183,22422,17500,2020-07-05 05:28:10,20200705.0,1593898090.0,1.28\n"
    log += "19,148,10,6067,2020-07-05 05:29:10,20200705.0,1593898150.0,0.001\n"
    items = "video_id,manual_cover_text,caption,topic_tag,first_level_category_id,first_level_category_name\n"
    items += '148,UNKNOWN,"Dog, happy","[dogs, pets]",8,Animals\n183,Look!,,[],0,UNKNOWN\n'
    path = put(folder / "kuairec_caption_category.csv", items)
    path.write_bytes(path.read_bytes().replace(b"happy", b"happ\xe4\xb8"))  # a character cut in half
    return KuaiRecSourceConfig(
        kind="kuairec", interactions=put(folder / "small_matrix.csv", log), captions=path, min_watch_ratio=0.5
    )


def huggingface_saved(folder: Path) -> SourceConfig:
    """Two saved folders; the rows of the log are picked by an index, as `select` and `shuffle` leave them."""
    rows = datasets.Dataset.from_dict({name: [*values, values[0]] for name, values in LOG_ROWS.items()})
    rows.select([2, 0, 1]).save_to_disk(folder / "log")
    image = [{"bytes": b"\xff\xd8", "path": None}, {"bytes": None, "path": None}]
    datasets.Dataset.from_dict({**ITEM_ROWS, "image": image}).save_to_disk(folder / "items")
    return HuggingFaceSourceConfig(
        kind="huggingface",
        interactions=HubTableConfig(path=str(folder / "log")),
        items=HubTableConfig(path=str(folder / "items")),
    )


def huggingface_splits(folder: Path) -> SourceConfig:
    rows = datasets.Dataset.from_dict(LOG_ROWS)
    datasets.DatasetDict(train=rows.select([0, 2]), test=rows.select([1])).save_to_disk(folder / "log")
    return HuggingFaceSourceConfig(kind="huggingface", interactions=HubTableConfig(path=str(folder / "log")))


def huggingface_parquet(folder: Path) -> SourceConfig:
    rows = pl.DataFrame(LOG_ROWS)
    (folder / "log" / "data").mkdir(parents=True)
    rows.head(1).write_parquet(folder / "log" / "data" / "train-00000-of-00002.parquet")
    rows.slice(1, 1).write_parquet(folder / "log" / "data" / "train-00001-of-00002.parquet")
    rows.tail(1).write_parquet(folder / "log" / "data" / "validation-00000-of-00001.parquet")
    (folder / "items").mkdir()
    pl.DataFrame(ITEM_ROWS).write_parquet(folder / "items" / "items.parquet")
    return HuggingFaceSourceConfig(
        kind="huggingface",
        interactions=HubTableConfig(path=str(folder / "log")),
        items=HubTableConfig(path=str(folder / "items")),
    )


def huggingface_loaded(folder: Path) -> SourceConfig:
    """A folder of JSON goes through `load_dataset`, as a name on the hub does."""
    rows = ({"user_id": "u1", "item_id": item, "timestamp": 1_700_000_000, "note": "x"} for item in ("i1", "i2"))
    put(folder / "log" / "train.jsonl", lines(*rows))
    return HuggingFaceSourceConfig(
        kind="huggingface", interactions=HubTableConfig(path=str(folder / "log"), split="train")
    )


SOURCES: dict[str, Callable[[Path], SourceConfig]] = {
    "table-csv": table_csv,
    "table-jsonl-gz": table_jsonl_gz,
    "table-parquet": table_parquet,
    "microlens-50k-csv": microlens_csv,
    "microlens-50k-tsv": microlens_tsv,
    "microlens-100k": microlens_100k,
    "amazon-2023-jsonl": amazon_jsonl,
    "amazon-2023-gz": amazon_gz,
    "amazon-2023-benchmark": amazon_benchmark,
    "mllm-msr-amazon": official,
    "mllm-msr-amazon-bare": lambda folder: official(folder, maps=False, meta=False),
    "movielens-100k": movielens_100k,
    "movielens-1m": movielens_1m,
    "movielens-20m": movielens_20m,
    "recbole": recbole,
    "mmrec": mmrec,
    "pixelrec": pixelrec,
    "hm": hm,
    "mind": mind,
    "netflix": netflix,
    "sql": sql,
    "kuairec": kuairec,
    "huggingface-saved": huggingface_saved,
    "huggingface-splits": huggingface_splits,
    "huggingface-parquet": huggingface_parquet,
    "huggingface-loaded": huggingface_loaded,
}
