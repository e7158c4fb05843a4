-- What a token's life needs: rotation and lineage, sessions, owners, where it may be used from, and who used it.

-- Null stands for what most tokens have, and takes no room.
alter table tokens
  -- 1 session, 2 personal; null: a service's.
  add column kind smallint,
  -- The subject that a personal token belongs to.
  add column owner text,
  add column idle_seconds integer,
  -- Slides with a session's use; written in batches.
  add column idle_expires_at timestamptz,
  -- CIDR prefixes in their canonical form.
  add column allowed_networks text [],
  -- RFC 8705 x5t#S256, 32 bytes.
  add column certificate_sha256 bytea,
  -- The first token of the chain of rotations; null: this one.
  add column lineage_id uuid,
  add column predecessor_id uuid,
  add column successor_id uuid,
  add column rotated_at timestamptz,
  -- The lineage that it dies with.
  add column tied_to uuid,
  -- How the digest was made; null: HMAC-SHA-256.
  add column digest_scheme smallint;

create index tokens_by_owner on tokens (owner) where owner is not null;

create index tokens_by_tie on tokens (tied_to) where tied_to is not null;

create index tokens_by_predecessor on tokens (predecessor_id) where predecessor_id is not null;

-- Few rows: rotated tokens that have not ended, for those that look whether they are still in use.
create index tokens_in_grace on tokens (rotated_at) where successor_id is not null and revoked_at is null;

-- For whom nothing can be issued. Issue takes a ROW SHARE lock on it, and whoever blocks an EXCLUSIVE one: an Issue that
-- began before is waited for, and one that comes later sees the block.
create table blocked_subjects (
  subject text primary key,
  reason text not null,
  blocked_by text not null,
  blocked_by_token_id uuid,
  blocked_at timestamptz not null default now()
);

-- Who used which token at which verifier. Written in batches, read by people. Partitioned as tokens are, so that it goes
-- with them.
create table token_usage (
  token_id uuid not null,
  -- The verifier's subject.
  service text not null,
  last_used_at timestamptz not null,
  use_count bigint not null,
  address text not null,
  scopes text [] not null,
  -- The networks it came from, as CIDR prefixes of /24 and /48, and no more than a few.
  networks text [] not null,
  primary key (token_id, service)
) partition by range (token_id);

-- Null: allowed; otherwise the reason for which it was denied.
alter table audit_events add column outcome text;

create index audit_events_denied on audit_events (id) where outcome is not null;

create or replace function ensure_partition(parent text, partition text, lower_bound uuid, upper_bound uuid)
returns boolean
language plpgsql security definer set search_path = public, pg_temp as $$
begin
  if parent not in ('tokens', 'token_usage', 'audit_events') or partition !~ ('^' || parent || '_[0-9]{8}$') then
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
