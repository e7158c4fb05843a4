-- Of this and a renewal only one finds the row: the second waits for the first, and looks again.
delete from replicas
where replicas.key = $1 and replicas.renewals = $2
returning replicas.key
