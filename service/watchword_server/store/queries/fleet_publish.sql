-- What a replica and its verifiers have applied. It never takes back what was told: a write that was held up may come
-- after a later one.
update replicas
set applied = greatest(replicas.applied, $3)
from feed
where replicas.key = $1 and replicas.epoch = $2 and feed.epoch = $2
returning replicas.key
