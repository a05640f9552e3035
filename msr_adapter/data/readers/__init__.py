"""Readers: published layouts and your own tables become a `Corpus`; every fault is told with its file and line.

What a reader is:
    reader           Corpus, ReadContext and the protocol of a reader
    sources          SOURCES, the table of all kinds; read, check and identify a source of any kind
The readers:
    table            your own csv, tsv, jsonl or Parquet
    microlens amazon mllm_msr_amazon movielens recbole (and MMRec) pixelrec hm kuairec mind netflix sql huggingface
    synthetic        the generated dataset
What they share:
    log_and_items    a log and its table of items, columns found by name
    events           which events of a log are targets, history, or merely seen
    clicks           what was clicked, and what was merely shown
    column_names     the names that columns have in published files
    column_choice    which column is taken where names alone do not say
    interactions     the rows of a log, checked and typed
    items            the rows of a table of items
    attribute_values columns of items and users for templates: their types
    timestamps       times of any common form as milliseconds
    id_columns       rows without an id, and ids that were rounded on the way
    missing_times    values that stand for a time that is missing
    log_times        the times of a log: how they are told, and which rows have none
    table_layout     how a file is cut into rows and columns
    parquet_footer   where the columns of a Parquet file lie
    parquet_parts    the files of a folder of Parquet, and which of them is broken
    table_scan       files as lazy frames
    local_copies     copies of what cannot be read where it lies or as it is written
    database         queries of a database as files of Parquet
    remote_files     files of buckets and the web, copied once
    joined           tables of several files, joined by keys
    compressed       gzip, and decompression bombs
    value_checks     bad values with their lines
    value_forms      how values are written where the pipeline says it
    parse_errors     where a file that cannot be parsed is broken
"""
