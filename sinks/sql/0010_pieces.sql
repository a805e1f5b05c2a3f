-- A row group of a head or a body can be read, and checked, without the rest of it.
comment on column batches.checksums is
    'CRC-32 (zlib) of head, body, filter and summary, 4 bytes each, big-endian; of no bytes for a null summary. '
    'Then of head and of body: how many pieces it has, the row groups and the footer of the file, in 2 bytes, and of '
    'each its end in the file and its CRC-32, in 4 bytes each. None for those that were packed before there were any';
