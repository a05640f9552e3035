"""Small logs in every layout that people have, written by hand after what their publishers document."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.reader_fixtures import lines, put

TIME = 1_300_000_000
PAIRS = [(user, (2 * user + place) % 9) for user in range(12) for place in range(5)]
"""Users and the items that they know: five of nine each."""


@dataclass(frozen=True)
class PublishedFormat:
    """A layout: its bundled pipeline, the files of a small log, and what they hold."""

    name: str
    """Of the bundled pipeline, below `logs/`, whose data lie in a folder of that name."""
    write: Callable[[Path], None]
    rows: int
    """Interactions that are read, repeats among them."""
    items: int
    """Rows of the table of items; 0 = there is none."""
    first: tuple[str, str, int]
    """User, item and time of the first row."""
    title: str | None = None
    """Of the item of the first row."""


def _amazon(review: dict[str, Any]) -> dict[str, Any]:
    return {"reviewerName": "A", "helpful": [0, 0], "reviewText": 'It\'s "good"', "summary": "s", **review}


def _amazon_2014(folder: Path) -> None:
    reviews = [_amazon({"reviewerID": f"A{user}", "asin": f"000{item}", "overall": 5.0,
                        "unixReviewTime": TIME + 86_400 * item, "reviewTime": "03 13, 2011"})
               for user, item in PAIRS]  # fmt: skip
    put(folder / "reviews_Video_Games_5.json.gz", lines(*reviews))
    meta = "".join(
        f"{{'asin': '000{n}', 'title': \"Rock 'n' roll {n}\", 'price': 9.99, 'imUrl': 'http://x/{n}.jpg', "
        f"'categories': [['Video Games', 'Xbox \\u00e9']], 'description': 'He said \"so\"\\n(None)', 'brand': None}}\n"
        for n in range(9)
    )
    put(folder / "meta_Video_Games.json.gz", meta)


def _amazon_2018(folder: Path) -> None:
    reviews = [_amazon({"reviewerID": f"A{user}", "asin": f"000{item}", "overall": 5.0, "verified": True,
                        "unixReviewTime": TIME + 86_400 * item, "reviewTime": "03 13, 2011", "style": {"Size:": "L"}})
               for user, item in PAIRS]  # fmt: skip
    put(folder / "Video_Games_5.json.gz", lines(*reviews))
    meta = [{"category": ["Games", "PC"], "description": ["One.", "Two."], "title": f"Game {n}", "asin": f"000{n}",
             "image": [f"https://x/{n}.jpg"], "price": "$5"} for n in range(9)]  # fmt: skip
    put(folder / "meta_Video_Games.json.gz", lines(*meta))


def _pairs(fields: Callable[[int, int], str]) -> str:
    return "".join(fields(user, item) + "\n" for user, item in PAIRS)


def _amazon_ratings(folder: Path) -> None:
    put(folder / "ratings_Video_Games.csv", _pairs(lambda u, i: f"A{u},000{i},5.0,{TIME + i}"))


def _bookcrossing(folder: Path) -> None:
    rows = '"User-ID";"ISBN";"Book-Rating"\n' + _pairs(lambda u, i: f'"{u}";"00{i}X";"{i}"')
    put(folder / "BX-Book-Ratings.csv", rows, "latin-1")
    head = '"ISBN";"Book-Title";"Book-Author";"Year";"Publisher";"Image-URL-S";"Image-URL-M";"Image-URL-L"\n'
    books = "".join(f'"00{n}X";"Café \\"{n}\\"; again";"B";"1999";"P";"http://s";"http://m";"http://l/{n}"\n'
                    for n in range(9))  # fmt: skip
    put(folder / "BX-Books.csv", head + books, "latin-1")


def _diginetica(folder: Path) -> None:
    rows = "session_id;user_id;item_id;timeframe;eventdate\n"
    # The rows of a session are in no order.
    rows += _pairs(lambda u, i: f"{u};NA;{81 + i};{(8 - i) * 1000};2016-05-09")
    put(folder / "train-item-views.csv", rows)
    put(folder / "products.csv", "itemId;pricelog2;product.name.tokens\n" + "".join(
        f"{81 + n};10;4875,776,{n}\n" for n in range(9)))  # fmt: skip


def _goodreads(folder: Path) -> None:
    shelves = [{"user_id": f"u{u}", "book_id": f"{10 + i}", "review_id": "r", "is_read": True, "rating": 4,
                "date_added": f"Wed Mar 22 11:37:0{i} -0700 2017", "date_updated": "Wed Mar 22 11:37:09 -0700 2017",
                "read_at": "", "started_at": ""} for u, i in PAIRS]  # fmt: skip
    put(folder / "goodreads_interactions_comics_graphic.json.gz", lines(*shelves))
    books = [{"isbn": "", "asin": "", "book_id": f"{10 + n}", "title": f"Book {n}", "description": "d",
              "image_url": f"https://x/{n}.jpg", "popular_shelves": [{"count": "3", "name": "to-read"}]}
             for n in range(9)]  # fmt: skip
    put(folder / "goodreads_books_comics_graphic.json.gz", lines(*books))


def _instacart(folder: Path) -> None:
    orders = "order_id,user_id,eval_set,order_number,order_dow,order_hour_of_day,days_since_prior_order\n"
    orders += "".join(f"{10 * u + n},{u},prior,{n},2,08,{'' if n == 1 else '15.0'}\n"
                      for u in range(1, 13) for n in (2, 1))  # fmt: skip
    put(folder / "orders.csv", orders)
    rows = "order_id,product_id,add_to_cart_order,reordered\n"
    rows += "".join(f"{10 * u + n},{100 + (2 * u + 3 * n + p) % 9},{3 - p},0\n"
                    for u in range(1, 13) for n in (1, 2) for p in range(3))  # fmt: skip
    put(folder / "order_products__prior.csv", rows)
    products = "product_id,product_name,aisle_id,department_id\n"
    put(folder / "products.csv", products + "".join(f'{100 + n},"Tea, no. {n}",61,19\n' for n in range(9)))


def _lastfm_1k(folder: Path) -> None:
    unknown = "user_000001\t2009-05-04T22:00:00Z\t\tNobody\t\tX\n"
    rows = _pairs(lambda u, i: f'user_00000{u + 1}\t2009-05-04T23:0{9 - i}:57Z\tf1b1cf{i}\tThe "{i}\t\tSong')
    put(folder / "userid-timestamp-artid-artname-traid-traname.tsv", rows + unknown)


def _lastfm_hetrec(folder: Path) -> None:
    rows = "userID\tartistID\ttagID\ttimestamp\n" + _pairs(lambda u, i: f"{u}\t{52 + i}\t13\t{(TIME + i) * 1000}")
    put(folder / "user_taggedartists-timestamps.dat", rows)
    artists = "id\tname\turl\tpictureURL\n" + "".join(
        f"{52 + n}\tBand {n}\thttp://last.fm/{n}\thttp://x/{n}.jpg\n" for n in range(9)
    )
    put(folder / "artists.dat", artists)


def _lightgcn(folder: Path) -> None:
    of = {user: [str(40 + item) for who, item in PAIRS if who == user] for user, _ in PAIRS}
    put(folder / "train.txt", "".join(f"{user} {' '.join(items)} \n" for user, items in of.items()) + "99\n")


def _merchant_feed(folder: Path) -> None:
    put(folder / "events.csv", "customer_id,sku,created_at\n"
        + _pairs(lambda u, i: f"c{u},SKU-{i},2024-01-0{i + 1} 10:00:00 UTC"))  # fmt: skip
    head = "id\ttitle\tdescription\tlink\timage_link\tprice\tbrand\n"
    put(folder / "products.txt", head + "".join(
        f'SKU-{n}\tChair {n}" wide\tOak\th://s/{n}\thttps://s/{n}.jpg\t{n}.99 EUR\tB\n' for n in range(9)))  # fmt: skip


def _netflix(folder: Path) -> None:
    films = {
        film: [f"14{user},3,2005-09-0{film}\n" for user, item in PAIRS if item + 1 == film] for film in range(1, 10)
    }
    for part, of in ((1, range(1, 4)), (2, range(4, 10))):
        put(folder / f"combined_data_{part}.txt", "".join(f"{film}:\n{''.join(films[film])}" for film in of))
    put(folder / "movie_titles.csv", "".join(f"{n},{2000 + n},Amélie, part {n}\n" for n in films), "latin-1")


def _online_retail(folder: Path) -> None:
    rows = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
    rows += _pairs(lambda u, i: f'53636{u},8512{i}A,"HEART, {i}",6,12/1/2010 {8 + i}:26,2.55,1785{u}.0,United Kingdom')
    rows += "536414,22139,,56,12/1/2010 11:52,0,,United Kingdom\n"
    put(folder / "OnlineRetail.csv", rows)


def _rees46(folder: Path) -> None:
    rows = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n"
    rows += _pairs(
        lambda u, i: (
            f"2019-10-01 00:00:0{i} UTC,{('view', 'purchase')[i % 2]},4480{i},2103,,acer,35.79,5413{u},72d76fde"
        )
    )
    put(folder / "2019-Oct.csv", rows)


def _retailrocket(folder: Path) -> None:
    rows = "timestamp,visitorid,event,itemid,transactionid\n"
    put(
        folder / "events.csv",
        rows + _pairs(lambda u, i: f"{(TIME + i) * 1000},2575{u},{('view', 'transaction')[i % 2]},3559{i},"),
    )


def _sasrec(folder: Path) -> None:
    put(folder / "ml-1m.txt", _pairs(lambda u, i: f"{u + 1} {i + 1}"))


def _shopify(folder: Path) -> None:
    rows = "Name,Email,Created at,Lineitem quantity,Lineitem name,Lineitem sku\n"
    rows += _pairs(lambda u, i: f"#10{u},u{u}@shop.example,2024-01-0{i + 1} 10:00:00 +0100,1,Mug {i},MUG-{i}")
    put(folder / "orders_export.csv", rows)
    head = "Handle,Title,Body (HTML),Vendor,Type,Variant SKU,Variant Price,Image Src\n"
    put(folder / "products_export.csv", head + "".join(
        f'mug-{n},Mug {n},"<p>Blue,\nround</p>",V,Mugs,MUG-{n},9.00,https://s/{n}.jpg\nmug-{n},,,,,,,https://s/{n}b.jpg\n'
        for n in range(9)))  # fmt: skip


def _spreadsheet(folder: Path) -> None:
    rows = "Kunde;Artikel;Bewertung;Datum\n"
    rows += _pairs(lambda u, i: f"Müller {u};Stühle – {i};{4 if i else 2},5;0{i + 1}.12.2023 14:05")
    put(folder / "bestellungen.csv", rows, "cp1252")


def _steam(folder: Path) -> None:
    put(folder / "steam_reviews.json.gz", _pairs(
        lambda u, i: f"{{u'username': u'Zoë {u}', u'hours': 1.5, u'product_id': u'4{i}', u'page': 1, "
        f"u'text': u'Don\\'t', u'date': u'2017-12-1{i}', u'early_access': False}}"))  # fmt: skip
    put(folder / "steam_games.json.gz", "".join(
        f"{{u'publisher': u'K', u'genres': [u'Action', u'Indie'], u'app_name': u'Game {n}', u'id': u'4{n}'}}\n"
        for n in range(9)) + "{u'publisher': u'', u'app_name': u'No id'}\n")  # fmt: skip


def _steam_200k(folder: Path) -> None:
    rows = _pairs(lambda u, i: f'1516037{u},"Game, the {i}",purchase,1.0,0\n1516037{u},"Game, the {i}",play,27.{i},0')
    put(folder / "steam-200k.csv", rows)


def _taobao(folder: Path) -> None:
    put(folder / "UserBehavior.csv", _pairs(lambda u, i: f"{u + 1},2268{i},2520377,{('pv', 'buy')[i % 2]},{TIME + i}"))


def _yelp(folder: Path) -> None:
    reviews = [{"review_id": "r", "user_id": f"u{u}", "business_id": f"b{i}", "stars": 4.0, "useful": 0,
                "text": "A\nB", "date": f"2016-03-09 16:44:2{i}"} for u, i in PAIRS]  # fmt: skip
    put(folder / "yelp_academic_dataset_review.json", lines(*reviews))
    places = [{"business_id": f"b{n}", "name": f"Café {n}", "attributes": {"WiFi": "u'free'"},
               "categories": "Coffee, Food"} for n in range(9)]  # fmt: skip
    put(folder / "yelp_academic_dataset_business.json", lines(*places))


def _yoochoose(folder: Path) -> None:
    put(folder / "yoochoose-clicks.dat", _pairs(lambda u, i: f"{u + 1},2014-04-07T10:51:0{i}.277Z,21453690{i},0"))


MS = TIME * 1000
DAY = 86_400_000
FORMATS = (
    PublishedFormat("amazon-2014", _amazon_2014, 60, 9, ("A0", "0000", MS), "Rock 'n' roll 0"),
    PublishedFormat("amazon-2018", _amazon_2018, 60, 9, ("A0", "0000", MS), "Game 0"),
    PublishedFormat("amazon-ratings", _amazon_ratings, 60, 0, ("A0", "0000", MS)),
    PublishedFormat("bookcrossing", _bookcrossing, 60, 9, ("0", "000X", 0), 'Café "0"; again'),
    PublishedFormat("diginetica", _diginetica, 60, 9, ("0", "81", 1_462_752_008_000), "4875,776,0"),
    PublishedFormat("goodreads", _goodreads, 60, 9, ("u0", "10", 1_490_207_820_000), "Book 0"),
    PublishedFormat("instacart", _instacart, 72, 9, ("1", "105", 1003), "Tea, no. 5"),
    PublishedFormat("lastfm-1k", _lastfm_1k, 60, 9, ("user_000001", "f1b1cf0", 1_241_478_597_000), 'The "0'),
    PublishedFormat("lastfm-hetrec", _lastfm_hetrec, 60, 9, ("0", "52", MS), "Band 0"),
    PublishedFormat("lightgcn", _lightgcn, 60, 0, ("0", "40", 0)),
    PublishedFormat("merchant-feed", _merchant_feed, 60, 9, ("c0", "SKU-0", 1_704_103_200_000), 'Chair 0" wide'),
    PublishedFormat("netflix", _netflix, 60, 9, ("140", "1", 1_125_532_800_000), "Amélie, part 1"),
    PublishedFormat("online-retail", _online_retail, 60, 10, ("17850.0", "85120A", 1_291_191_960_000), "HEART, 0"),
    PublishedFormat("rees46", _rees46, 60, 0, ("54130", "44800", 1_569_888_000_000)),
    PublishedFormat("retailrocket", _retailrocket, 60, 0, ("25750", "35590", MS)),
    PublishedFormat("sasrec", _sasrec, 60, 0, ("1", "1", 0)),
    PublishedFormat("shopify", _shopify, 60, 9, ("u0@shop.example", "MUG-0", 1_704_099_600_000), "Mug 0"),
    PublishedFormat("spreadsheet", _spreadsheet, 60, 0, ("Müller 0", "Stühle – 0", 1_701_439_500_000)),
    PublishedFormat("steam", _steam, 60, 9, ("Zoë 0", "40", 1_512_864_000_000), "Game 0"),
    PublishedFormat("steam-200k", _steam_200k, 120, 9, ("15160370", "Game, the 0", 0), "Game, the 0"),
    PublishedFormat("taobao", _taobao, 60, 0, ("1", "22680", MS)),
    PublishedFormat("yelp", _yelp, 60, 9, ("u0", "b0", 1_457_541_860_000), "Café 0"),
    PublishedFormat("yoochoose", _yoochoose, 60, 0, ("1", "214536900", 1_396_867_860_277)),
)
"""Every layout with a bundled pipeline below `logs/`."""
