-- A replica with whose leases nobody decides any more.
delete from replicas
where replicas.key = $1
