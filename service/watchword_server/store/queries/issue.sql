-- Many tokens, one commit. One statement is one transaction: either a token is there with its audit event and its
-- request id, or none of them is.
--
-- `blocked` takes a ROW SHARE lock on its table before the statement's snapshot: a subject that is being blocked is waited
-- for, and then seen to be; whoever blocks one later waits for this commit, and then finds what it stored.
-- (test_issue_never_slips_a_token_past_a_block)
--
-- `issuers` locks each issuing token's row against a concurrent revocation: a revocation that came first is seen (the
-- condition is checked again on the new row), one that comes later waits and then finds what was issued.
-- (test_revoked_issuer_never_slips_one_in) `lineage_ends_at` does the same for what a token is tied to.
with given as (
  select * from unnest(
    $1::uuid [], $2::smallint [], $3::bytea [], $4::text [], $5::text [], $6::text [], $7::text [], $8::text [],
    $9::text [], $10::timestamptz [], $11::uuid [], $12::text [], $13::text [], $14::uuid [], $15::text [],
    $16::text [], $17::smallint [], $18::text [], $19::integer [], $20::timestamptz [], $21::text [], $22::bytea [],
    $23::uuid [], $24::smallint []
  ) as given (
    id, pepper_version, digest, subject, audiences, scopes, grants, name, metadata, expires_at, issued_by, request_id,
    actor, event_id, address, details, kind, owner, idle_seconds, idle_expires_at, allowed_networks,
    certificate_sha256, tied_to, digest_scheme
  )
),

blocked as (
  select blocked_subjects.subject
  from blocked_subjects
  where blocked_subjects.subject = any ($4::text []) or blocked_subjects.subject = any ($18::text [])
  for key share
),

issuers as (
  select tokens.id, tokens.expires_at
  from tokens
  where
    tokens.id = any ($25::uuid []) and tokens.revoked_at is null
    and least(tokens.expires_at, tokens.idle_expires_at) > now()
  order by tokens.id
  for share
),

judged as (
  select
    given.id,
    issuers.expires_at as issuer_ends_at,
    (given.issued_by is null or issuers.id is not null)
    and (given.tied_to is null or lineage_ends_at(given.tied_to) is not null) as issuer_lives,
    (select min(blocked.subject) from blocked where blocked.subject in (given.subject, given.owner)) as blocked_subject
  from given
  left join issuers on given.issued_by = issuers.id
),

allowed as (
  select
    given.id, given.pepper_version, given.digest, given.subject, given.audiences, given.scopes, given.grants,
    given.name, given.metadata, given.issued_by, given.request_id, given.actor, given.event_id, given.address,
    given.details, given.kind, given.owner, given.idle_seconds, given.idle_expires_at, given.allowed_networks,
    given.certificate_sha256, given.tied_to, given.digest_scheme,
    -- What is tied never outlives its issuer, as that is now.
    case when given.tied_to is null then given.expires_at else least(given.expires_at, judged.issuer_ends_at) end
      as expires_at
  from given
  inner join judged on given.id = judged.id
  where judged.issuer_lives and judged.blocked_subject is null
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
    id, pepper_version, digest, subject, audiences, scopes, grants, name, metadata, created_at, expires_at, issued_by,
    kind, owner, idle_seconds, idle_expires_at, allowed_networks, certificate_sha256, tied_to, digest_scheme
  )
  select
    allowed.id, allowed.pepper_version, allowed.digest, allowed.subject, string_to_array(allowed.audiences, ' '),
    string_to_array(allowed.scopes, ' '), allowed.grants::jsonb, allowed.name, allowed.metadata::jsonb, now(),
    allowed.expires_at, allowed.issued_by, allowed.kind, allowed.owner, allowed.idle_seconds, allowed.idle_expires_at,
    string_to_array(allowed.allowed_networks, ' '), allowed.certificate_sha256, allowed.tied_to, allowed.digest_scheme
  from allowed
  where allowed.request_id = '' or allowed.id in (select requests.token_id from requests)
  returning tokens.id, tokens.expires_at
),

recorded as (
  insert into audit_events (id, action, actor, actor_token_id, address, token_id, details)
  select
    allowed.event_id, case when allowed.issued_by is null then 'bootstrap' else 'issue' end, allowed.actor,
    allowed.issued_by, allowed.address, allowed.id, allowed.details::jsonb
  from allowed inner join stored on allowed.id = stored.id
)

select
  judged.id, judged.issuer_lives, judged.blocked_subject, now() as created_at, stored.expires_at,
  stored.id is not null as stored
from judged
left join stored on judged.id = stored.id
