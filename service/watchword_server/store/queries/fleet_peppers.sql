-- The servers whose leases go on, and the pepper versions that each of them has.
select
  replicas.name, replicas.pepper_versions
from replicas
where replicas.renewed_at > clock_timestamp() - make_interval(secs => replicas.lease_seconds)
order by replicas.name
