-- How far each open batch is written, so that another daemon reads from its rows what is certain to be all up to a place.
create table progress (
    batch        bigint      primary key references batches on delete cascade,
    settled      integer     not null,
    received_min timestamptz,
    received_max timestamptz
);
comment on table progress is 'How far open batches are written; what their daemons say of them some times a second';
comment on column progress.settled is
    'All writes to places below it have ended: what of them is not in logs never will be';
comment on column progress.received_min is 'Bounds of received_at of what is there, as in batches';
