-- Who may do what: a token is told once, when it is made; here is its hash.
create table tokens (
    name         text        primary key check (name <> ''),
    hash         bytea       not null unique check (length(hash) = 32),
    scopes       text[]      not null check (scopes <> '{}' and scopes <@ '{ingest,query,admin}'),
    services     text[]      check (services <> '{}'),
    environments text[]      check (environments <> '{}'),
    created_at   timestamptz not null default now(),
    revoked_at   timestamptz
);
comment on table tokens is 'Tokens; those revoked stay, so that a daemon that wants tokens never stops wanting them';
comment on column tokens.hash is 'SHA-256 of the token, which is 256 random bits and needs no slower hash';
comment on column tokens.services is 'The only services that it may write and read; null: all';
comment on column tokens.environments is 'The only environments that it may write and read; null: all';
