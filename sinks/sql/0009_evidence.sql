-- Whether a silence means anything: a source is expected only when it was seen in so many minutes, and an alert tells
-- a service that was never seen from one that has gone quiet.
alter table sources add column minutes bigint not null default 1;
update sources set minutes = 10 where usual_interval is not null and last_seen - first_seen >= interval '10 minutes';

comment on column sources.minutes is 'In how many minutes it was seen; after ten a silence is one';

alter table alerts alter column value drop not null;

comment on column alerts.value is
    'What was found the last time: records, seconds of silence, new patterns; null: a silence of what was never seen';
