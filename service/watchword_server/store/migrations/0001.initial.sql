-- Watchword's first schema. Forward only. Every unique constraint holds the partition key, nothing on the hot path has a
-- foreign key, and no sequence serves as a cursor, so that a distributed Postgres can take it as it is.

-- Partitioned by range of id, which begins with the token's hard end: expired tokens lie together, and purging them is
-- dropping a table. There is no default partition: one would forbid detaching concurrently and block later partitions.
create table tokens (
  id uuid not null,
  created_at timestamptz not null,
  expires_at timestamptz not null,
  revoked_at timestamptz,
  issued_by uuid,
  pepper_version smallint not null,
  digest bytea not null,
  subject text not null,
  audiences text[] not null,
  scopes text[] not null,
  name text,
  grants jsonb,
  metadata jsonb,
  revoke_reason text,
  primary key (id)
) partition by range (id);

create index tokens_by_subject on tokens (subject);

create index tokens_by_issuer on tokens (issued_by) where issued_by is not null;

-- Few rows: it answers "is there a live administrator, and until when?" without reading the table.
create index tokens_administrators on tokens (expires_at) where revoked_at is null and 'watchword.*' = any (scopes);

-- One row. `position` counts the transactions that made any token less valid; its row lock makes positions commit in
-- order and without gaps, which a sequence would not. `mark` is drawn anew with each position: a position whose mark
-- differs belongs to another history of this database.
create table feed (
  only_row boolean primary key default true check (only_row),
  position bigint not null,
  mark uuid not null,
  epoch uuid not null,
  epoch_began_at timestamptz not null
);

insert into feed (position, mark, epoch, epoch_began_at)
values (0, gen_random_uuid(), gen_random_uuid(), now());

-- So that the planner knows of the one row: it takes a table that was never analyzed for a thousand.
analyze feed;

-- Which tokens became less valid at which position.
create table changes (
  position bigint not null,
  token_id uuid not null,
  primary key (position, token_id)
);

create table scopes (
  name text primary key,
  description text not null,
  owner text not null,
  registered_at timestamptz not null default now(),
  live_tokens bigint not null default 0,
  counted_at timestamptz
);

insert into scopes (name, description, owner) values
  ('watchword.issue', 'Issue tokens within one''s grants', 'watchword'),
  ('watchword.validate', 'Check tokens', 'watchword'),
  ('watchword.revoke', 'Revoke tokens within one''s grants', 'watchword'),
  ('watchword.read', 'See tokens, scopes and audit events', 'watchword'),
  ('watchword.register', 'Add scopes to the catalogue', 'watchword');

-- What makes a retried Issue safe. Kept 24 hours.
create table issue_requests (
  caller_subject text not null,
  request_id text not null,
  token_id uuid not null,
  created_at timestamptz not null default now(),
  primary key (caller_subject, request_id)
);

create index issue_requests_by_age on issue_requests (created_at);

-- Who did what, written in the transaction that did it. The id is a UUIDv7, so it partitions by time as tokens do.
create table audit_events (
  id uuid not null,
  occurred_at timestamptz not null default now(),
  action text not null,
  actor text not null,
  actor_token_id uuid,
  address text not null,
  token_id uuid,
  details jsonb not null,
  primary key (id)
) partition by range (id);

create index audit_events_by_token on audit_events (token_id, id) where token_id is not null;

create index audit_events_by_actor on audit_events (actor, id);

-- The HMAC of a constant under each pepper: a wrong or missing pepper stops the start, not the first customer.
create table pepper_checks (
  version smallint primary key,
  check_value bytea not null,
  added_at timestamptz not null default now()
);

-- Creates one partition without ever blocking a reader: a table of the same shape, then ATTACH, which takes a lock that
-- reads and writes pass. It runs as the owner of the schema, so the serving role needs no right to alter tables.
create function ensure_partition(parent text, partition text, lower_bound uuid, upper_bound uuid) returns boolean
language plpgsql security definer set search_path = public, pg_temp as $$
begin
  if parent not in ('tokens', 'audit_events') or partition !~ ('^' || parent || '_[0-9]{8}$') then
    raise exception 'not a partition of Watchword: %', partition;
  end if;
  if to_regclass(quote_ident(partition)) is not null then
    return false;
  end if;
  execute format('create table %I (like %I including defaults including constraints)', partition, parent);
  execute format('alter table %I attach partition %I for values from (%L) to (%L)', parent, partition,
                 lower_bound, upper_bound);
  return true;
end
$$;

revoke execute on function ensure_partition(text, text, uuid, uuid) from public;
