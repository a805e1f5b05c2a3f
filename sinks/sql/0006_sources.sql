-- Who sends: a row for each host, service, environment and transport, written by the daemons every few seconds.
create table sources (
    host           text             not null,
    service        text             not null,
    environment    text             not null,
    transport      text             not null,
    first_seen     timestamptz      not null,
    last_seen      timestamptz      not null,
    records        bigint           not null,
    bytes          bigint           not null,
    rate           double precision not null,
    clock_skew     double precision not null,
    usual_interval double precision,
    quiet_after    double precision generated always as
        (case when usual_interval is not null then greatest(60, 10 * usual_interval) end) stored,
    gaps           bigint           not null default 0,
    longest_gap    double precision,
    primary key (host, service, environment, transport)
) with (fillfactor = 50);
comment on table sources is 'Who sends, by what their records say; times are those of receipt, spans are seconds';
comment on column sources.host is 'Empty for none, as service and environment; at most 128 characters of each';
comment on column sources.bytes is 'Bytes as received, shared out evenly among the records that came together';
comment on column sources.rate is 'Records a second at last_seen, an average of some five minutes that starts at 0';
comment on column sources.clock_skew is 'Receipt minus timestamp: how late records come, or how slow their clock is';
comment on column sources.usual_interval is 'Usual pause between two lots of records; null as long as there was none';
comment on column sources.quiet_after is 'So long without a record is a silence';
comment on column sources.gaps is 'Silences that ended; longest_gap is the longest of them';
