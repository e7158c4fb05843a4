-- What is known of a replica's watchers, in place of what was.
with gone as (
  delete from watchers
  where watchers.replica = $1 and watchers.verifier_key <> all ($2::bytea [])
),

counted as (
  update replicas
  set watchers_count = cardinality($2::bytea [])
  where replicas.key = $1
)

insert into watchers (
  replica, verifier_key, name, instance, library, address, subject, lag, lease_remaining_seconds, attached
)
select
  $1, given.verifier_key, given.name, given.instance, given.library, given.address, given.subject, given.lag,
  given.lease_remaining_seconds, given.attached
from unnest(
  $2::bytea [], $3::text [], $4::text [], $5::text [], $6::text [], $7::text [], $8::bigint [],
  $9::double precision [], $10::boolean []
) as given (verifier_key, name, instance, library, address, subject, lag, lease_remaining_seconds, attached)
on conflict (replica, verifier_key) do update
set
  name = excluded.name, instance = excluded.instance, library = excluded.library, address = excluded.address,
  subject = excluded.subject, lag = excluded.lag, lease_remaining_seconds = excluded.lease_remaining_seconds,
  attached = excluded.attached, reported_at = excluded.reported_at
