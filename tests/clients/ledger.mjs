// A short run with the official Node client: accounts, transfers, chains, two phases, lookups.
//
// Usage: ledger.mjs CLUSTER ADDRESSES, with the directory of the client's package in
// STAMPEDE_TEST_NODE_PACKAGE. Prints the number of checks; any difference ends it with a message.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { createRequire } from 'node:module'

const require = createRequire(process.env.STAMPEDE_TEST_NODE_PACKAGE + '/')
const { createClient, AccountFlags, TransferFlags } = require('tigerbeetle-node')

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

client.destroy()
console.log(`ok: ${checks} checks`)
