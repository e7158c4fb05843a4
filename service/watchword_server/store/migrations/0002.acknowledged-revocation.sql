-- What revocation needs to be acknowledged: positions with their marks, the replicas, and where the database is.

-- One row for each position: its mark tells two histories of this database apart, and `everything` stands for all tokens
-- there are, where naming them would be longer than forgetting all.
create table positions (
  number bigint primary key,
  mark uuid not null,
  everything boolean not null default false,
  taken_at timestamptz not null default now()
);

insert into positions (number, mark, everything)
select
  feed.position, feed.mark, false
from feed;

alter table feed
  -- Positions up to this one have been pruned: whoever is further behind begins anew.
  add column pruned_to bigint not null default 0,
  -- False for one maximum lease after a new epoch began: leases of the old one may still be out there.
  add column epoch_settled boolean not null default true,
  add column longest_lease_seconds double precision not null default 0,
  -- Which PostgreSQL this is. Null until a server first looks.
  add column system_identifier bigint,
  add column timeline bigint;

-- Positions from before this migration have no row of their own, so nobody can resume from before it.
update feed
set pruned_to = feed.position;

delete from changes;

-- The server processes. A row is a lease: its process renews it, and whoever waits for a revocation may delete the row
-- of one that stopped, after that lease.
create table replicas (
  key uuid primary key,
  epoch uuid not null,
  name text not null,
  applied bigint,
  renewals bigint not null default 0,
  lease_seconds double precision not null,
  draining boolean not null default false,
  watchers_count integer not null default 0,
  joined_at timestamptz not null default now(),
  renewed_at timestamptz not null default now()
);

-- What each replica last told about the verifiers attached to it, for people. The guarantee does not read it.
create table watchers (
  replica uuid not null,
  verifier_key bytea not null,
  name text not null,
  instance text not null,
  library text not null,
  address text not null,
  subject text not null,
  lag bigint not null,
  lease_remaining_seconds double precision not null,
  attached boolean not null,
  reported_at timestamptz not null default now(),
  primary key (replica, verifier_key)
);

-- Which PostgreSQL answers, and on which timeline it writes: a restore changes the one, a promotion the other at once.
-- (The control file tells of a promotion only after the next checkpoint.)
create function server_identity(out system_identifier bigint, out timeline bigint)
language sql volatile as $$
select
  control.system_identifier,
  ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::bigint
from pg_control_system() as control
$$;
