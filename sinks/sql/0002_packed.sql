-- What packing needs: the summary as columns, checksums, the batches that wait, the days that unpack has made again.

-- A tenth of the same counts as JSON.
alter table batches drop column summary;
alter table batches add column summary bytea;
alter table batches alter summary set storage external;

-- Neither PostgreSQL nor Parquet as it is written here would notice a flipped bit.
alter table batches add column checksums bytea;

-- A batch is in it for the minute between closing and packing.
create index batches_unpacked on batches (closed_at) where packed_at is null;

comment on table batches is
    'One row a batch of records: who fills it, what is in it, and its packed form; kept for the setting retention';
comment on column batches.packed_at is
    'Since then head, body, filter and summary hold the records, and the rows of logs may go';
comment on column batches.head is
    'Parquet: id timestamp received_at severity facility environment host service source trace_id span_id';
comment on column batches.body is 'Parquet, its rows in the order of head: message attributes raw';
comment on column batches.filter is 'Bloom filter over the words of the batch';
comment on column batches.summary is
    'Parquet: counts by minute, environment, service and severity; null where it would be hardly smaller than the head';

comment on column batches.checksums is
    'CRC-32 (zlib) of head, body, filter and summary, 4 bytes each, big-endian; of no bytes for a null summary';

create table kept_days (
    day        date        primary key,
    keep_until timestamptz not null
);
comment on table kept_days is
    'UTC days of received_at whose rows logagg db unpack has brought back: they stay until then, whatever rows_retention says';
