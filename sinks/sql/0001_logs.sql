-- Records as rows, the batches they were written in, and what could not become a record.

create sequence owners as integer;
comment on sequence owners is 'A number for each opened store; while it lives it holds the advisory lock (1819240295, number)';

create table logs (
    id          bigint      not null,
    batch       bigint      not null,
    timestamp   timestamptz not null,
    received_at timestamptz not null,
    severity    smallint    not null check (severity between 0 and 7),
    facility    smallint    check (facility between 0 and 127),
    environment text,
    host        text,
    service     text,
    source      text,
    message     text        not null,
    attributes  jsonb,
    trace_id    text,
    span_id     text,
    raw         bytea
) partition by range (received_at);

comment on table logs is 'One row a log record, kept for rows_retention; a partition for each UTC day of received_at';
comment on column logs.id is 'batch << 17 | place in the batch: unique, below 2^53';
comment on column logs.batch is 'The row of the table batches that this record belongs to';
comment on column logs.timestamp is 'When it happened, as the sender says';
comment on column logs.received_at is 'When logagg read it; the table is partitioned by this';
comment on column logs.severity is
    'RFC 5424: 0 EMERGENCY, 1 ALERT, 2 CRITICAL, 3 ERROR, 4 WARNING, 5 NOTICE, 6 INFO, 7 DEBUG; see the function level()';
comment on column logs.facility is 'Syslog facility, 0 to 23; null where the sender has none';
comment on column logs.environment is 'Such as production or staging';
comment on column logs.host is 'The machine that the record tells of';
comment on column logs.service is 'The program or service that the record tells of';
comment on column logs.source is 'Where it came from: what the sender calls its source, else its address';
comment on column logs.message is 'The text';
comment on column logs.attributes is 'All other fields, as one JSON object';
comment on column logs.raw is 'The bytes as they came, where something had to be replaced';

-- Rows arrive nearly in the order of both columns, so ranges of blocks are index enough. 128 blocks hold some 3,000 rows, a
-- twentieth of a batch. New ranges are summarised by maintenance each minute: autosummarize would ask for it range by range,
-- and fill the server's log with refusals when more than 256 wait.
create index logs_timestamp on logs using brin (timestamp) with (pages_per_range = 128);
create index logs_id on logs using brin (id) with (pages_per_range = 128);

-- Where rows go that no day was made for, so that no clock, however wrong, makes an insert fail.
create table logs_default partition of logs default;

create function level(severity smallint) returns text
    language sql immutable strict parallel safe
    return (array['EMERGENCY', 'ALERT', 'CRITICAL', 'ERROR', 'WARNING', 'NOTICE', 'INFO', 'DEBUG'])[severity + 1];
comment on function level(smallint) is 'Name of a severity: select level(severity), message from logs';

create table batches (
    -- 36 bits, so that an id stays below 2^53.
    batch        bigint generated always as identity (maxvalue 68719476735) primary key,
    owner        integer     not null,
    opened_at    timestamptz not null default now(),
    closed_at    timestamptz,
    packed_at    timestamptz,
    count        bigint,
    ts_min       timestamptz,
    ts_max       timestamptz,
    received_min timestamptz,
    received_max timestamptz,
    services     text[],
    hosts        text[],
    environments text[],
    head         bytea,
    body         bytea,
    filter       bytea,
    summary      jsonb
);
alter table batches
    alter head set storage external, alter body set storage external, alter filter set storage external;
create index batches_open on batches (batch) where closed_at is null;

comment on table batches is 'One row a batch of records: who fills it, what is in it, and its packed form';
comment on column batches.owner is 'Which opened store fills it, from the sequence owners';
comment on column batches.closed_at is 'Since then nothing is added, and the columns after packed_at are known';
comment on column batches.packed_at is 'Since then head, body, filter and summary hold the records, too';
comment on column batches.services is 'The distinct services, null among them; null as a whole when they are too many to be of use';
comment on column batches.hosts is 'As services';
comment on column batches.environments is 'As services';
comment on column batches.head is 'Parquet: id, timestamp, severity, service, host, environment ...';
comment on column batches.body is 'Parquet: message, attributes ...';
comment on column batches.filter is 'Bloom filter over the words of the batch';
comment on column batches.summary is 'Counts by minute, environment, service and severity';

create table quarantine (
    id          bigint generated always as identity primary key,
    received_at timestamptz not null,
    transport   text        not null,
    source      text        not null,
    reason      text        not null,
    raw         bytea       not null
);
comment on table quarantine is 'Bytes that could not become a record, with the reason';
comment on column quarantine.transport is 'The listener they came to, or store when PostgreSQL refused the record';
