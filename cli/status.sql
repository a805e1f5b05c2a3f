-- What `logagg db status` shows: one row. It reads no log record but those of open batches, and of packed forms only the
-- lengths, so that it is quick at any size; the number of rows is an estimate, and of their times only the days are told.
with parts as (
    select c.relname as name,
           greatest(c.reltuples, s.n_live_tup, 0)::bigint as rows,
           pg_indexes_size(c.oid) as indexes,
           pg_total_relation_size(c.oid) as total,
           -- A day made ahead has no block yet. Batches do not tell: rows may outlive theirs, and go before them.
           pg_relation_size(c.oid) > 0 as filled,
           case when c.relname ~ '^logs_\d{4}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])$' then substr(c.relname, 6)::date end as day
    from pg_inherits i
    join pg_class c on c.oid = i.inhrelid
    left join pg_stat_user_tables s on s.relid = c.oid
    where i.inhparent = 'logs'::regclass
),
-- A batch that is still open does not yet know what is in it; its rows do, and their ids are all in one range.
spans as (
    select count, ts_min, ts_max, received_min, received_max, packed_at is not null as packed, false as open
    from batches where closed_at is not null
    union all
    select count(*), min(l.timestamp), max(l.timestamp), min(l.received_at), max(l.received_at), false, true
    from batches b
    join logs l on l.id >= b.batch << 17 and l.id < (b.batch + 1) << 17
    where b.closed_at is null
    group by b.batch
),
packed as (
    select coalesce(sum(count), 0)::bigint as records,
           coalesce(sum(octet_length(head)), 0)::bigint as head,
           coalesce(sum(octet_length(body)), 0)::bigint as body,
           coalesce(sum(octet_length(filter)), 0)::bigint as filter,
           coalesce(sum(octet_length(summary)), 0)::bigint as summary
    from batches where packed_at is not null
),
lag as (
    select count(*) as batches, coalesce(sum(count), 0)::bigint as records,
           coalesce(extract(epoch from now() - min(closed_at)), 0)::float8 as seconds
    from batches where closed_at is not null and packed_at is null
)
select
    current_setting('server_version') as server_version,
    (select count(*) from batches where closed_at is null) as batches_open,
    (select count(*) from batches where closed_at is not null and packed_at is null) as batches_closed,
    (select count(*) from batches where packed_at is not null) as batches_packed,
    (select coalesce(sum(count), 0)::bigint from spans) as records,
    -- Statistics are late: of a young database only the batches are known.
    greatest(
        (select coalesce(sum(rows), 0)::bigint from parts),
        (select coalesce(sum(count), 0)::bigint from spans where open)
    ) as rows_estimate,
    (select coalesce(sum(total), 0)::bigint from parts) as rows_bytes,
    (select coalesce(sum(indexes), 0)::bigint from parts) as rows_index_bytes,
    packed.records as packed_records,
    packed.head + packed.body + packed.filter + packed.summary as packed_bytes,
    packed.head as head_bytes,
    packed.body as body_bytes,
    packed.filter as filter_bytes,
    packed.summary as summary_bytes,
    lag.batches as lag_batches,
    lag.records as lag_records,
    lag.seconds as lag_seconds,
    (select count(*) from parts where day is not null) as partitions,
    (select min(name) from parts where day is not null) as first_partition,
    (select max(name) from parts where day is not null) as last_partition,
    (select coalesce(sum(rows), 0)::bigint from parts where name = 'logs_default') as rows_in_default_partition,
    pg_total_relation_size('batches') as batches_bytes,
    pg_total_relation_size('quarantine') as quarantine_bytes,
    pg_database_size(current_database()) as database_bytes,
    (select count(*) from quarantine) as quarantined,
    (select min(received_min) from spans) as oldest_received,
    (select max(received_max) from spans) as newest_received,
    (select min(ts_min) from spans) as oldest_timestamp,
    (select max(ts_max) from spans) as newest_timestamp,
    (select min(day) from parts where filled) as rows_oldest_day,
    (select max(day) from parts where filled) as rows_newest_day,
    (select min(received_min) from spans where packed) as packed_oldest_received,
    (select max(received_max) from spans where packed) as packed_newest_received,
    (select min(ts_min) from spans where packed) as packed_oldest_timestamp,
    (select max(ts_max) from spans where packed) as packed_newest_timestamp
from packed, lag
