-- What a token's life needs: rotation and lineage, sessions, owners, where it may be used from, and who used it. It has
-- the tables for itself, and so reads no rows: whatever has to is in 0004.

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
  -- The token of whoever made this one by rotating somebody else's, and so knows its secret. Null: it was issued, or its
  -- predecessor rotated itself.
  add column rotated_by uuid,
  -- True: its end was brought forward, and no successor ends later. Null: it ends as it was made to.
  add column shortened boolean,
  -- The lineage that it dies with.
  add column tied_to uuid,
  -- How the digest was made; null: HMAC-SHA-256.
  add column digest_scheme smallint;

-- Which try of a rotation made the token.
alter table issue_requests add column attempt bigint;

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

-- When a lineage ends: at the end of the latest of its tokens, if that one is live, else null. Locks that token's row
-- against being revoked or rotated. One that is being rotated is waited for, and then is the latest no more; a revoked one
-- may be the lost successor of a rotation that was repeated, and its stand-in is the latest.
create function lineage_ends_at(lineage uuid) returns timestamptz
language plpgsql volatile strict set search_path = public, pg_temp as $$
declare
  head record;
begin
  for attempt in 1..3 loop
    select tokens.expires_at, tokens.idle_expires_at into head
    from tokens
    where
      (tokens.id = lineage or tokens.lineage_id = lineage)
      and tokens.successor_id is null and tokens.revoked_at is null
    for share;
    if found then
      return case when least(head.expires_at, head.idle_expires_at) > now() then head.expires_at end;
    end if;
  end loop;
  return null;
end
$$;

-- Drops one partition in which nothing can be valid any more. It runs as the owner of the schema and trusts nobody who
-- calls it: no token lives beyond the instant that its id begins with, whatever its row says, and that of every id in
-- here is past; and of the audit log it keeps 90 days, so that whoever takes over a server cannot unmake what it did.
-- All or nothing, as every transaction. It gives up on a lock at once, because every reader queues behind one that waits.
create function drop_partition(parent text, partition text) returns boolean
language plpgsql security definer set search_path = public, pg_temp set lock_timeout = '250ms' as $$
declare
  bounds text;
  ended_at timestamptz;
begin
  if parent not in ('tokens', 'token_usage', 'audit_events') or partition !~ ('^' || parent || '_[0-9]{8}$') then
    raise exception 'not a partition of Watchword: %', partition;
  end if;
  select pg_get_expr(child.relpartbound, child.oid) into bounds
  from pg_inherits
  inner join pg_class as child on pg_inherits.inhrelid = child.oid
  where
    pg_inherits.inhparent = to_regclass(parent) and child.oid = to_regclass(quote_ident(partition))
    and child.relkind = 'r';
  if bounds is null then
    return false;
  end if;
  -- The first millisecond that is wholly above it; null if it has no end.
  ended_at := to_timestamp((
    ('x' || left(replace(substring(bounds from 'TO \(''([0-9a-f-]{36})''\)$'), '-', ''), 12))::bit(48)::bigint + 1
  ) / 1000.0);
  -- In parentheses: the THEN of a bare CASE would end the condition.
  if (ended_at > now() - case parent when 'audit_events' then interval '90 days' else interval '0' end)
    or ended_at is null
  then
    raise exception 'not past: %', partition;
  end if;
  execute format('drop table %I', partition);
  return true;
end
$$;

revoke execute on function drop_partition(text, text) from public;

-- Which pepper versions a server can check tokens with, the one that it stores new ones with first; null: it is older
-- than this column. Last, because it locks the table in which running servers renew their leases.
alter table replicas add column pepper_versions smallint [];
