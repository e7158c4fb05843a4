-- For people.
update replicas
set draining = true
where replicas.key = $1
