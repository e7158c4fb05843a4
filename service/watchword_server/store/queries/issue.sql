-- Many tokens, one commit. One statement is one transaction: either a token is there with its audit event and its
-- request id, or none of them is.
--
-- `issuers` locks each issuing token's row against a concurrent revocation: a revocation that came first is seen (the
-- condition is checked again on the new row), one that comes later waits and then finds what was issued.
-- (test_revoked_issuer_never_slips_one_in)
with given as (
  select * from unnest(
    $1::uuid [], $2::smallint [], $3::bytea [], $4::text [], $5::text [], $6::text [], $7::text [], $8::text [],
    $9::text [], $10::timestamptz [], $11::uuid [], $12::text [], $13::text [], $14::uuid [], $15::text [], $16::text []
  ) as given (
    id, pepper_version, digest, subject, audiences, scopes, grants, name, metadata, expires_at, issued_by, request_id,
    actor, event_id, address, details
  )
),

issuers as (
  select tokens.id
  from tokens
  where tokens.id = any ($17::uuid []) and tokens.revoked_at is null and tokens.expires_at > now()
  for share
),

allowed as (
  select given.* from given
  where given.issued_by is null or given.issued_by in (select issuers.id from issuers)
),

requests as (
  insert into issue_requests as earlier (caller_subject, request_id, token_id)
  select allowed.actor, allowed.request_id, allowed.id from allowed
  where allowed.request_id <> ''
  order by allowed.actor, allowed.request_id
  on conflict (caller_subject, request_id) do update
    set token_id = excluded.token_id, created_at = excluded.created_at
    where earlier.created_at < now() - interval '24 hours'
  returning earlier.token_id
),

stored as (
  insert into tokens (
    id, pepper_version, digest, subject, audiences, scopes, grants, name, metadata, created_at, expires_at, issued_by
  )
  select
    allowed.id, allowed.pepper_version, allowed.digest, allowed.subject, string_to_array(allowed.audiences, ' '),
    string_to_array(allowed.scopes, ' '), allowed.grants::jsonb, allowed.name, allowed.metadata::jsonb, now(),
    allowed.expires_at, allowed.issued_by
  from allowed
  where allowed.request_id = '' or allowed.id in (select requests.token_id from requests)
  returning tokens.id
),

recorded as (
  insert into audit_events (id, action, actor, actor_token_id, address, token_id, details)
  select
    allowed.event_id, case when allowed.issued_by is null then 'bootstrap' else 'issue' end, allowed.actor,
    allowed.issued_by, allowed.address, allowed.id, allowed.details::jsonb
  from allowed inner join stored on allowed.id = stored.id
)

select given.id, stored.id is not null as stored, allowed.id is not null as allowed, now() as created_at
from given
left join allowed on given.id = allowed.id
left join stored on given.id = stored.id
