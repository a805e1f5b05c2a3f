-- A write that may come twice brings a key: a flush out of the journal its own, a sender the one that it repeats with
-- what it sends again. It is stored in the same transaction, so the second one finds it.
create table keys (
    key        bytea       primary key,
    written_at timestamptz not null default now()
);
create index keys_written_at on keys using brin (written_at);

comment on table keys is
    'Keys of writes that are in: a write with one of them is not stored again; kept for a week';
