// A short run with the official Node client: accounts, transfers, chains, two phases, lookups, queries.
//
// Usage: ledger.mjs CLUSTER ADDRESSES, with the directory of the client's package in
// STAMPEDE_TEST_NODE_PACKAGE. Prints the number of checks; any difference ends it with a message.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { createRequire } from 'node:module'

const require = createRequire(process.env.STAMPEDE_TEST_NODE_PACKAGE + '/')
const {
  createClient, AccountFlags, TransferFlags, AccountFilterFlags, QueryFilterFlags,
} = require('tigerbeetle-node')

const [cluster, addresses] = process.argv.slice(2)
const client = createClient({ cluster_id: BigInt(cluster), replica_addresses: addresses.split(',') })

const CREATED = 0xffffffff
const LEDGER = 900
const fresh = () => BigInt('0x' + randomBytes(15).toString('hex')) + 1n
const zero = {
  user_data_128: 0n, user_data_64: 0n, user_data_32: 0, timestamp: 0n,
}
const account = (fields = {}) => ({
  id: fresh(), debits_pending: 0n, debits_posted: 0n, credits_pending: 0n, credits_posted: 0n,
  reserved: 0, ledger: LEDGER, code: 1, flags: 0, ...zero, ...fields,
})
const transfer = (debit, credit, amount, fields = {}) => ({
  id: fresh(), debit_account_id: debit.id, credit_account_id: credit.id, amount,
  pending_id: 0n, timeout: 0, ledger: LEDGER, code: 1, flags: 0, ...zero, ...fields,
})

let checks = 0
const equal = (found, expected, what) => {
  checks += 1
  assert.deepEqual(found, expected, what)
}
const statuses = results => results.map(result => result.status)

const [a, b] = [account(), account({ flags: AccountFlags.debits_must_not_exceed_credits })]
equal(statuses(await client.createAccounts([a, b])), [CREATED, CREATED], 'accounts')
equal(statuses(await client.createAccounts([a, account({ code: 0 })])), [21, 14], 'exists; no code')

const first = transfer(a, b, 10n)
equal(statuses(await client.createTransfers([first, first])), [CREATED, 46], 'once')
const chain = [
  transfer(a, b, 1n, { flags: TransferFlags.linked }),
  transfer(b, a, 100n),
]
equal(statuses(await client.createTransfers(chain)), [1, 54], 'a chain that breaks')

const pending = transfer(b, a, 4n, { flags: TransferFlags.pending })
equal(statuses(await client.createTransfers([pending])), [CREATED], 'pending')
const none = { id: 0n }
const post = transfer(none, none, 3n, {
  pending_id: pending.id, flags: TransferFlags.post_pending_transfer, ledger: 0, code: 0,
})
equal(statuses(await client.createTransfers([post])), [CREATED], 'posted in part')

const found = await client.lookupAccounts([b.id, fresh(), a.id])
equal(found.map(x => x.id), [b.id, a.id], 'accounts in order')
equal([found[0].credits_posted, found[0].debits_posted, found[0].debits_pending], [10n, 3n, 0n], 'b')
equal([found[1].debits_posted, found[1].credits_posted], [10n, 3n], 'a')
const transfers = await client.lookupTransfers([post.id, first.id])
equal(transfers.map(x => [x.id, x.amount]), [[post.id, 3n], [first.id, 10n]], 'transfers')

const many = await Promise.all(
  Array.from({ length: 50 }, () => client.createTransfers([transfer(a, b, 1n)])),
)
equal(many.map(statuses), Array(50).fill([CREATED]), 'many calls at once')

// What time does alone: a closing transfer expires, and its account is open again.
const short = transfer(a, b, 2n, {
  flags: TransferFlags.pending | TransferFlags.closing_credit, timeout: 1,
})
equal(statuses(await client.createTransfers([short])), [CREATED], 'closing')
equal(statuses(await client.createTransfers([transfer(a, b, 1n)])), [66], 'closed')
await new Promise(resolve => setTimeout(resolve, 2000))
equal(statuses(await client.createTransfers([transfer(a, b, 1n)])), [CREATED], 'open again')

// Ids of failures that might pass stay failed.
const late = transfer(b, a, 1n << 100n)
equal(statuses(await client.createTransfers([late, late])), [54, 68], 'more than there is')
equal(await client.lookupTransfers([late.id]), [], 'no transfer')

// Balancing, and balances over time.
const [c, d] = [account({ flags: AccountFlags.history }), account()]
equal(statuses(await client.createAccounts([c, d])), [CREATED, CREATED], 'more accounts')
const topic = fresh()
const story = [
  transfer(d, c, 30n, { user_data_128: topic, user_data_64: 1n }),
  transfer(c, d, 12n, { flags: TransferFlags.pending, user_data_64: 1n }),
  transfer(c, d, 1n << 90n, { flags: TransferFlags.balancing_debit, user_data_128: topic }),
  transfer(d, c, 1n, { user_data_128: topic, user_data_64: 1n, user_data_32: 3 }),
]
equal(statuses(await client.createTransfers(story)), Array(4).fill(CREATED), 'a story')
const told = await client.lookupTransfers(story.map(x => x.id))
equal(told.map(x => x.amount), [30n, 12n, 18n, 1n], 'as much as there is')

const filter = (fields = {}) => ({
  account_id: c.id, user_data_128: 0n, user_data_64: 0n, user_data_32: 0, code: 0,
  timestamp_min: 0n, timestamp_max: 0n, limit: 100,
  flags: AccountFilterFlags.debits | AccountFilterFlags.credits, ...fields,
})
const pick = (...numbers) => numbers.map(n => story[n].id)
const ids = async found => (await found).map(x => x.id)
equal(await client.getAccountTransfers(filter()), told, 'transfers of an account')
equal(await ids(client.getAccountTransfers(filter({ user_data_64: 1n, user_data_128: topic }))), pick(0, 3), 'both')
equal(await ids(client.getAccountTransfers(filter({ flags: AccountFilterFlags.debits }))), pick(1, 2), 'debits')
const reversed = AccountFilterFlags.debits | AccountFilterFlags.credits | AccountFilterFlags.reversed
equal(await ids(client.getAccountTransfers(filter({ flags: reversed, limit: 2 }))), pick(3, 2), 'the last two')
const range = { timestamp_min: told[1].timestamp, timestamp_max: told[2].timestamp }
equal(await ids(client.getAccountTransfers(filter(range))), pick(1, 2), 'a range')
equal(await client.getAccountTransfers(filter({ flags: 0 })), [], 'no side, no transfers')
equal(await client.getAccountTransfers(filter({ limit: 0 })), [], 'no limit, no transfers')
const balances = await client.getAccountBalances(filter())
equal(
  balances.map(x => [x.timestamp, x.debits_pending, x.debits_posted, x.credits_posted]),
  [[0n, 0n, 30n], [12n, 0n, 30n], [12n, 18n, 30n], [12n, 18n, 31n]]
    .map((row, n) => [told[n].timestamp, ...row]),
  'balances',
)
equal(await client.getAccountBalances(filter({ account_id: d.id })), [], 'no history')

const query = (fields = {}) => ({
  user_data_128: 0n, user_data_64: 0n, user_data_32: 0, ledger: LEDGER, code: 0,
  timestamp_min: 0n, timestamp_max: 0n, limit: 100, flags: 0, ...fields,
})
equal(await ids(client.queryTransfers(query({ user_data_128: topic }))), pick(0, 2, 3), 'by topic')
equal(
  await ids(client.queryTransfers(query({ user_data_128: topic, flags: QueryFilterFlags.reversed }))),
  pick(3, 2, 0), 'reversed',
)
equal(await ids(client.queryTransfers(query({ user_data_128: topic, user_data_32: 3 }))), pick(3), 'rare')
equal(await client.queryTransfers(query({ user_data_128: topic, ledger: 1 })), [], 'nothing')
const since = (await client.lookupAccounts([c.id]))[0].timestamp
equal(await ids(client.queryAccounts(query({ timestamp_min: since }))), [c.id, d.id], 'new accounts')

client.destroy()
console.log(`ok: ${checks} checks`)
