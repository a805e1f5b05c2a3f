-- How the alerts of the settings stand, so that another daemon goes on where one has stopped.
create table alerts (
    name       text             primary key,
    firing     boolean          not null,
    since      timestamptz      not null,
    value      double precision not null,
    checked_at timestamptz      not null,
    waiting    jsonb            not null
);
comment on table alerts is 'State of the alerts that the settings of the daemons have';
comment on column alerts.since is 'When it began to fire, or ceased to';
comment on column alerts.value is 'What was found the last time: records, seconds of silence, new patterns';
comment on column alerts.waiting is 'Messages that the webhook has not taken yet, the oldest first';
