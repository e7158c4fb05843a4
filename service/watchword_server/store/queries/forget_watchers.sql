-- What replicas told that are gone.
delete from watchers
where not exists (select 1 from replicas where replicas.key = watchers.replica)
