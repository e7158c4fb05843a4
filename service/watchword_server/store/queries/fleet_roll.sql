-- All replicas, and where the feed stands at that moment. On a PostgreSQL that is not the one in which the epoch began
-- nothing is settled, also before anybody has begun the next one: who joined may be missing here
-- (test_nothing_is_settled_on_a_database_that_is_another).
select
  feed.epoch as feed_epoch, feed.position, feed.longest_lease_seconds,
  feed.epoch_settled
  and coalesce((feed.system_identifier, feed.timeline) = (here.system_identifier, here.timeline), true)
    as epoch_settled,
  replicas.key, replicas.epoch, replicas.name, replicas.applied, replicas.renewals, replicas.lease_seconds,
  replicas.draining, replicas.watchers_count,
  extract(epoch from clock_timestamp() - replicas.renewed_at)::double precision as renewed_ago_seconds
from feed
cross join server_identity() as here
left join replicas on true
order by replicas.name, replicas.key
