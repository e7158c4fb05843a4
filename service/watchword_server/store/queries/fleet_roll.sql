-- All replicas, and where the feed stands at that moment.
select
  feed.epoch as feed_epoch, feed.position, feed.epoch_settled, feed.longest_lease_seconds,
  replicas.key, replicas.epoch, replicas.name, replicas.applied, replicas.renewals, replicas.lease_seconds,
  replicas.draining, replicas.watchers_count,
  extract(epoch from clock_timestamp() - replicas.renewed_at)::double precision as renewed_ago_seconds
from feed
left join replicas on true
order by replicas.name, replicas.key
