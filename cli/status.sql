-- What `logagg db status` shows: one row. The number of rows is an estimate, so that it is quick at any size.
with parts as (
    select c.relname as name,
           greatest(c.reltuples, s.n_live_tup, 0)::bigint as rows,
           pg_relation_size(c.oid) as heap,
           pg_indexes_size(c.oid) as indexes,
           pg_total_relation_size(c.oid) as total
    from pg_inherits i
    join pg_class c on c.oid = i.inhrelid
    left join pg_stat_user_tables s on s.relid = c.oid
    where i.inhparent = 'logs'::regclass
),
-- A batch that is still open does not yet know what is in it; its rows do, and their ids are all in one range.
spans as (
    select false as open, count, ts_min, ts_max, received_min, received_max from batches where closed_at is not null
    union all
    select true, count(*), min(l.timestamp), max(l.timestamp), min(l.received_at), max(l.received_at)
    from batches b
    join logs l on l.id >= b.batch << 17 and l.id < (b.batch + 1) << 17
    where b.closed_at is null
    group by b.batch
)
select
    current_setting('server_version') as server_version,
    -- Statistics are late: of a young database only the open batches are known.
    greatest(
        (select coalesce(sum(rows), 0)::bigint from parts),
        (select coalesce(sum(count), 0)::bigint from spans where open)
    ) as rows_estimate,
    (select count(*) from batches where closed_at is null) as batches_open,
    (select count(*) from batches where closed_at is not null and packed_at is null) as batches_closed,
    (select count(*) from batches where packed_at is not null) as batches_packed,
    (select coalesce(sum(count), 0)::bigint from spans) as records,
    (select count(*) from parts where name <> 'logs_default') as partitions,
    (select min(name) from parts where name <> 'logs_default') as first_partition,
    (select max(name) from parts where name <> 'logs_default') as last_partition,
    (select coalesce(sum(rows), 0)::bigint from parts where name = 'logs_default') as rows_in_default_partition,
    (select coalesce(sum(total), 0)::bigint from parts) as logs_bytes,
    (select coalesce(sum(indexes), 0)::bigint from parts) as logs_index_bytes,
    pg_total_relation_size('batches') as batches_bytes,
    pg_total_relation_size('quarantine') as quarantine_bytes,
    pg_database_size(current_database()) as database_bytes,
    (select count(*) from quarantine) as quarantined,
    (select min(received_min) from spans) as oldest_received,
    (select max(received_max) from spans) as newest_received,
    (select min(ts_min) from spans) as oldest_timestamp,
    (select max(ts_max) from spans) as newest_timestamp
