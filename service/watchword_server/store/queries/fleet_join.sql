-- A replica's row, and with it, before the first lease is granted, how long leases may be.
with here as (
  update feed
  set longest_lease_seconds = greatest(feed.longest_lease_seconds, $4)
  where feed.epoch = $2
  returning feed.epoch
)

insert into replicas (key, epoch, name, lease_seconds, pepper_versions)
select
  $1, here.epoch, $3, $4, $5::smallint []
from here
returning replicas.key
