-- Records of some services or environments are kept shorter or longer than the others: a batch with some of both is
-- written anew when the first of them are over.
alter table batches add column trimmed text;

comment on column batches.trimmed is
    'What was taken out of it already: a digest of the settings retention and retention_for as they stood at its age';
comment on column batches.packed_at is
    'Since then head, body, filter and summary are what they are; they hold the records, and the rows of logs may go';
