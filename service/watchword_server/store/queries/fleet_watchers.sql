-- One page of the watchers of replicas that are there.
select
  watchers.replica, watchers.verifier_key, watchers.name, watchers.instance, watchers.library, watchers.address,
  watchers.subject, watchers.lag, watchers.lease_remaining_seconds, watchers.attached,
  extract(epoch from clock_timestamp() - watchers.reported_at)::double precision as reported_ago_seconds
from watchers
inner join replicas on watchers.replica = replicas.key
where $2::uuid is null or (watchers.replica, watchers.verifier_key) > ($2, $3::bytea)
order by watchers.replica, watchers.verifier_key
limit $1
