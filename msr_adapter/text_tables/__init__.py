"""Files of text that hold rows: how a line is cut into fields, and what no reader may pass over in silence.

opening      files opened as what they hold: gzip, byte order marks
marks        quotation marks behind backslashes, in the bytes of a block
line_counts  a pass over the bytes of a delimited file: lines, separators, quotation marks against RFC 4180
mark_lines   the slower look at the lines whose quotation marks RFC 4180 does not explain
dialects     the decision: RFC 4180, no quotation marks, marks within fields, backslash escapes; or a refusal
delimited    a delimited file of any dialect as a lazy frame
file_faults  where a file is broken, by line; a fault that repeats is told once
json_blocks  blocks of JSON lines, in which strings are told from all else without parsing
json_keys    the keys of all objects of a block, and those that one object has twice
json_shape   the same keys in every line, compared with a block's at once
json_array   one array of objects
python_dicts dicts as Python prints them, as JSON lines
json_scan    a pass over JSON lines: late keys, NaN, byte order marks, halves of characters
json_lines   JSON lines and arrays as a lazy frame
"""
