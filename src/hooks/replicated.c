/*-------------------------------------------------------------------------
 *
 * replicated.c
 *		Keeps our tables as they are where a subscription would empty them.
 *
 * What logical replication brings are the publisher's tasks.  Its rows are
 * dropped by a trigger (copies.c); but no trigger can have a TRUNCATE left out, and
 * one that refuses it would stop the subscription.  So the rows are kept aside
 * before it and put back behind it, in the same statement: nobody else sees the
 * tables meanwhile, which are locked.
 *
 * All of our tables are treated like that, the history included.  As much as they
 * hold is written once more; there is no quicker way, and TRUNCATE of these tables
 * is rare.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heaptoast.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "replication/logicalworker.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "hooks/hooks.h"

/* The rows of a table that is being truncated. */
typedef struct KeptRows
{
	Oid			relid;
	Tuplestorestate *rows;
} KeptRows;

/* In TopTransactionContext of the transaction that they are of. */
static List *kept = NIL;
static TransactionId kept_in = InvalidTransactionId;

static WriterCache cache;

/*
 * Forget what is kept for writing if a relation, or any, has changed, as the
 * relcache has been told.
 */
void
replicated_relation_changed(Oid relid)
{
	table_writer_invalidate(&cache, relid);
}

/* Keep the rows of a table, with all that is stored beside it. */
static void
replicated_keep(Relation rel)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	KeptRows   *entry = palloc(sizeof(KeptRows));
	TupleTableSlot *slot;
	TableScanDesc scan;

	if (kept_in != GetTopTransactionId())
		kept = NIL;
	kept_in = GetTopTransactionId();
	entry->relid = RelationGetRelid(rel);
	entry->rows = tuplestore_begin_heap(false, false, work_mem);
	kept = lappend(kept, entry);
	MemoryContextSwitchTo(old);

	slot = table_slot_create(rel, NULL);
	scan = compat_table_beginscan(rel, SnapshotSelf);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		HeapTuple	tuple = ExecCopySlotHeapTuple(slot);
		HeapTuple	whole = tuple;

		CHECK_FOR_INTERRUPTS();
		if (HeapTupleHasExternal(tuple))
			whole = toast_flatten_tuple(tuple, RelationGetDescr(rel));
		tuplestore_puttuple(entry->rows, whole);
		if (whole != tuple)
			heap_freetuple(whole);
		heap_freetuple(tuple);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
}

/* Write the rows of a table that are kept. */
static void
replicated_put_back(Relation rel, Tuplestorestate *rows)
{
	Writer	   *writer = table_writer_open(&cache, rel);
	TupleTableSlot *from = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsMinimalTuple);
	TupleTableSlot *to = table_slot_create(rel, NULL);

	while (tuplestore_gettupleslot(rows, true, false, from))
	{
		CHECK_FOR_INTERRUPTS();
		ExecCopySlot(to, from);
		table_writer_insert(writer, to);
	}
	ExecDropSingleTupleTableSlot(from);
	ExecDropSingleTupleTableSlot(to);
	table_writer_close(writer);
	tuplestore_end(rows);
}

/*
 * Keep the rows BEFORE TRUNCATE of our tables, and put them back AFTER it,
 * where a subscription truncates them.
 */
PG_FUNCTION_INFO_V1(ts_guard_truncate);
Datum
ts_guard_truncate(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	ListCell   *lc;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function taskshed._guard_truncate() must be called by its triggers")));
	if (!IsLogicalWorker())
		return PointerGetDatum(NULL);

	if (TRIGGER_FIRED_BEFORE(trigger->tg_event))
	{
		replicated_keep(trigger->tg_relation);
		return PointerGetDatum(NULL);
	}
	Assert(kept_in == GetTopTransactionId());
	foreach(lc, kept)
	{
		KeptRows   *entry = lfirst(lc);

		if (entry->relid == RelationGetRelid(trigger->tg_relation))
		{
			kept = foreach_delete_current(kept, lc);
			replicated_put_back(trigger->tg_relation, entry->rows);
			break;
		}
	}
	return PointerGetDatum(NULL);
}
