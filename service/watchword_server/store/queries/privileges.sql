-- What serving takes and this role may not do, of the tables that exist. docs/operate.md has the grants.
select needed.name, needed.privilege
from (
  values
  ('tokens', 'select'), ('tokens', 'insert'), ('tokens', 'update'),
  ('token_usage', 'select'), ('token_usage', 'insert'), ('token_usage', 'update'),
  ('blocked_subjects', 'select'), ('blocked_subjects', 'insert'), ('blocked_subjects', 'update'),
  ('blocked_subjects', 'delete'),
  ('scopes', 'select'), ('scopes', 'insert'), ('scopes', 'update'),
  ('feed', 'select'), ('feed', 'update'),
  ('positions', 'select'), ('positions', 'insert'), ('positions', 'delete'),
  ('changes', 'select'), ('changes', 'insert'), ('changes', 'delete'),
  ('replicas', 'select'), ('replicas', 'insert'), ('replicas', 'update'), ('replicas', 'delete'),
  ('watchers', 'select'), ('watchers', 'insert'), ('watchers', 'update'), ('watchers', 'delete'),
  ('audit_events', 'select'), ('audit_events', 'insert'),
  ('pepper_checks', 'select'), ('pepper_checks', 'insert'),
  ('issue_requests', 'select'), ('issue_requests', 'insert'), ('issue_requests', 'update'), ('issue_requests', 'delete'),
  ('_yoyo_migrations', 'select')
) as needed (name, privilege)
where not has_table_privilege(to_regclass(needed.name), needed.privilege)
union all
select 'ensure_partition', 'execute'
where not has_function_privilege(to_regprocedure('ensure_partition(text, text, uuid, uuid)'), 'execute')
union all
select 'drop_partition', 'execute'
where not has_function_privilege(to_regprocedure('drop_partition(text, text)'), 'execute')
union all
select 'server_identity', 'execute'
where not has_function_privilege(to_regprocedure('server_identity()'), 'execute')
