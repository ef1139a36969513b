/*-------------------------------------------------------------------------
 *
 * store_find.c
 *		Reading rows of the tables task and alarm.
 *
 * Reads use SnapshotSelf, which sees what is committed now and what this
 * transaction did itself.  It takes no predicate locks, so a SERIALIZABLE run
 * conflicts with nobody over our tables.  Such a read can miss a row whose
 * update commits at that moment, since it may pass the new version's place
 * before and the old one's place after; so "not found" is asked once more
 * with a fresh MVCC snapshot, applied by hand to all versions that a scan meets
 * (store_sees), since a scan with such a snapshot would take those locks.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_collation_d.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/smgr.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "tables/tables.h"

/* Counts of attempts and the like stay below, so that two can be added. */
#define MAX_COUNT	(PG_INT32_MAX / 2)

/*
 * Return whether an MVCC snapshot sees the row version in slot, which a scan
 * with SnapshotAny has found.
 */
bool
store_sees(Snapshot snapshot, TupleTableSlot *slot)
{
	BufferHeapTupleTableSlot *buffered = (BufferHeapTupleTableSlot *) slot;
	bool		sees;

	Assert(TTS_IS_BUFFERTUPLE(slot));
	LockBuffer(buffered->buffer, BUFFER_LOCK_SHARE);
	sees = HeapTupleSatisfiesVisibility(buffered->base.tuple, snapshot, buffered->buffer);
	LockBuffer(buffered->buffer, BUFFER_LOCK_UNLOCK);
	return sees;
}

/* Copy the row in a slot into the current memory context. */
static void
store_copy_row(Relation heap, TupleTableSlot *slot, ItemPointer tid, Datum *values, bool *nulls)
{
	HeapTuple	tuple = ExecCopySlotHeapTuple(slot);

	*tid = slot->tts_tid;
	heap_deform_tuple(tuple, RelationGetDescr(heap), values, nulls);
}

/*
 * Find one row by an index and copy it into the current memory context.  Return
 * false if there is none.
 */
static bool
store_fetch(Relation heap, Relation index, TupleTableSlot *slot,
			ScanKey keys, int nkeys, ScanDirection direction,
			ItemPointer tid, Datum *values, bool *nulls)
{
	bool		found = false;

	for (int attempt = 0; !found && attempt < 2; attempt++)
	{
		Snapshot	snapshot = NULL;
		IndexScanDesc scan;

		if (attempt > 0)
			snapshot = RegisterSnapshot(GetLatestSnapshot());

		scan = compat_index_beginscan(heap, index, attempt == 0 ? SnapshotSelf : SnapshotAny, nkeys);
		index_rescan(scan, keys, nkeys, NULL, 0);
		while (!found && index_getnext_slot(scan, direction, slot))
		{
			if (attempt > 0 && !store_sees(snapshot, slot))
				continue;
			store_copy_row(heap, slot, tid, values, nulls);
			found = true;
		}
		index_endscan(scan);
		ExecClearTuple(slot);

		if (attempt > 0)
			UnregisterSnapshot(snapshot);
	}
	return found;
}

bool
store_find_task(Store *store, Oid owner, Datum task_id, TaskRow *row)
{
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(owner));
	ScanKeyEntryInitialize(&keys[1], 0, 2, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ, task_id);
	return store_fetch(store->task, store_index(store, TASK_KEY), store->task_slot,
					   keys, 2, ForwardScanDirection,
					   &row->tid, row->values, row->nulls);
}

bool
store_get_task(Store *store, int64 id, TaskRow *row)
{
	ScanKeyData key;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(id));
	return store_fetch(store->task, store_index(store, TASK_PKEY), store->task_slot,
					   &key, 1, ForwardScanDirection,
					   &row->tid, row->values, row->nulls);
}

/*
 * Return whether a table has a block.  What it had when it was last asked for its length
 * is enough to know, and saves a system call: who cuts a table short has all others
 * forget that, and waits for our lock.
 */
static bool
store_has_block(Relation heap, BlockNumber block)
{
	BlockNumber known = RelationGetSmgr(heap)->smgr_cached_nblocks[MAIN_FORKNUM];

	if (known != InvalidBlockNumber && block < known)
		return true;
	return block < RelationGetNumberOfBlocks(heap);
}

/*
 * Fetch the row that is at a place, where one of that id has been seen, in this file
 * of the table or another.  Return false, with the slot empty, if it is not there.
 * If it is, it is the one, for no other version of it is valid.
 */
static bool
store_fetch_at(Relation heap, TupleTableSlot *slot, AttrNumber id_column, ItemPointerData tid,
			   int64 id)
{
	bool		isnull;

	if (!ItemPointerIsValid(&tid) ||
		!store_has_block(heap, ItemPointerGetBlockNumber(&tid)) ||
		!table_tuple_fetch_row_version(heap, &tid, SnapshotSelf, slot))
		return false;
	if (DatumGetInt64(slot_getattr(slot, id_column, &isnull)) == id)
		return true;
	ExecClearTuple(slot);
	return false;
}

/*
 * Read the row of a task where its alarm says that it is, and look for it if it is not
 * there: somebody may have written the tables anew.
 */
bool
store_get_task_of(Store *store, const AlarmRow *alarm, TaskRow *row)
{
	int64		id = ROW_GET(Int64, alarm, alarm_id);

	if (!ROW_ISNULL(alarm, alarm_task_tid) &&
		store_fetch_at(store->task, store->task_slot, Anum_task_id,
					   *(ItemPointer) DatumGetPointer(ROW_DATUM(alarm, alarm_task_tid)), id))
	{
		store_copy_row(store->task, store->task_slot, &row->tid, row->values, row->nulls);
		ExecClearTuple(store->task_slot);
		return true;
	}
	return store_get_task(store, id, row);
}

/* Bring a time into the range that can be reckoned with. */
static TimestampTz
store_finite(TimestampTz time)
{
	return Max(MIN_TIMESTAMP, Min(time, END_TIMESTAMP - 1));
}

/*
 * Bring what somebody may have written by hand into the range of what we write
 * ourselves, so that arithmetic on it cannot overflow.
 */
static void
store_mend_alarm(AlarmRow *row)
{
	ROW_SET(TimestampTz, row, alarm_run_at, store_finite(ROW_GET(TimestampTz, row, alarm_run_at)));
	ROW_SET(TimestampTz, row, alarm_scheduled_at,
			store_finite(ROW_GET(TimestampTz, row, alarm_scheduled_at)));
	ROW_SET(TimestampTz, row, alarm_anchor, store_finite(ROW_GET(TimestampTz, row, alarm_anchor)));
	if (!ROW_ISNULL(row, alarm_resume_at))
		ROW_SET(TimestampTz, row, alarm_resume_at,
				store_finite(ROW_GET(TimestampTz, row, alarm_resume_at)));
	ROW_SET(Int64, row, alarm_run_count,
			Max(-1, Min(ROW_GET(Int64, row, alarm_run_count), PG_INT64_MAX - 1)));
	ROW_SET(Int32, row, alarm_attempt,
			Max(0, Min(ROW_GET(Int32, row, alarm_attempt), MAX_COUNT)));
	ROW_SET(Int32, row, alarm_failures_in_row,
			Max(0, Min(ROW_GET(Int32, row, alarm_failures_in_row), MAX_COUNT)));
	ROW_SET(Int32, row, alarm_interruptions,
			Max(0, Min(ROW_GET(Int32, row, alarm_interruptions), MAX_COUNT)));
	if (!ROW_ISNULL(row, alarm_restarts))
		ROW_SET(Int32, row, alarm_restarts,
				Max(0, Min(ROW_GET(Int32, row, alarm_restarts), MAX_COUNT)));
	if (!ROW_ISNULL(row, alarm_close_failures))
		ROW_SET(Int32, row, alarm_close_failures,
				Max(0, Min(ROW_GET(Int32, row, alarm_close_failures), MAX_COUNT)));
}

/* Copy the alarm in the slot into the current memory context. */
void
store_copy_alarm(Store *store, AlarmRow *row)
{
	store_copy_row(store->alarm, store->alarm_slot, &row->tid, row->values, row->nulls);
	store_mend_alarm(row);
}

bool
store_get_alarm(Store *store, int64 id, AlarmRow *row)
{
	ScanKeyData key;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(id));
	if (!store_fetch(store->alarm, store_index(store, ALARM_TASK), store->alarm_slot,
					 &key, 1, BackwardScanDirection,
					 &row->tid, row->values, row->nulls))
		return false;
	store_mend_alarm(row);
	return true;
}

/* Read an alarm that somebody has seen at a place, and look for it if it has moved. */
bool
store_get_alarm_at(Store *store, int64 id, const ItemPointerData *alarm_tid, AlarmRow *row)
{
	if (store_fetch_at(store->alarm, store->alarm_slot, Anum_alarm_id, *alarm_tid, id))
	{
		store_copy_alarm(store, row);
		ExecClearTuple(store->alarm_slot);
		return true;
	}
	return store_get_alarm(store, id, row);
}

/*
 * Collect the ids of the tasks that an index finds, in its order, as an array
 * of *n.
 */
static int64 *
store_collect_ids(Store *store, Relation index, ScanKey keys, int nkeys, int *n)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	IndexScanDesc scan;
	int			size = 64;
	int64	   *ids = palloc(size * sizeof(int64));

	*n = 0;
	scan = compat_index_beginscan(store->task, index, SnapshotAny, nkeys);
	index_rescan(scan, keys, nkeys, NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, store->task_slot))
	{
		bool		isnull;

		if (!store_sees(snapshot, store->task_slot))
			continue;
		if (*n == size)
		{
			size *= 2;
			ids = repalloc_huge(ids, size * sizeof(int64));
		}
		ids[(*n)++] = DatumGetInt64(slot_getattr(store->task_slot, Anum_task_id, &isnull));
	}
	index_endscan(scan);
	ExecClearTuple(store->task_slot);
	UnregisterSnapshot(snapshot);
	return ids;
}

/* Find the tasks of a group, in the order of their task_ids. */
int64 *
store_find_group(Store *store, Oid owner, Datum group_id, int *n)
{
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(owner));
	ScanKeyEntryInitialize(&keys[1], 0, 2, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ, group_id);
	return store_collect_ids(store, store_index(store, TASK_GROUP), keys, 2, n);
}

/* Find all tasks of an owner, in the order of their task_ids. */
int64 *
store_find_owned(Store *store, Oid owner, int *n)
{
	ScanKeyData key;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(owner));
	return store_collect_ids(store, store_index(store, TASK_KEY), &key, 1, n);
}

/* What a version of a row is to somebody who counts. */
typedef enum VersionState
{
	VERSION_THERE,				/* now, or at some time since the count began */
	VERSION_REMOVED_HERE,		/* by this transaction */
	VERSION_GONE
} VersionState;

static VersionState
store_version_state(TupleTableSlot *slot, Snapshot begun)
{
	BufferHeapTupleTableSlot *buffered = (BufferHeapTupleTableSlot *) slot;
	HeapTuple	tuple = buffered->base.tuple;
	VersionState state = VERSION_GONE;
	TransactionId remover;

	Assert(TTS_IS_BUFFERTUPLE(slot));
	LockBuffer(buffered->buffer, BUFFER_LOCK_SHARE);
	switch (HeapTupleSatisfiesVacuumHorizon(tuple, buffered->buffer, &remover))
	{
		case HEAPTUPLE_LIVE:
		case HEAPTUPLE_INSERT_IN_PROGRESS:
			state = VERSION_THERE;
			break;
		case HEAPTUPLE_DELETE_IN_PROGRESS:
			remover = HeapTupleHeaderGetUpdateXid(tuple->t_data);
			state = TransactionIdIsCurrentTransactionId(remover) ?
				VERSION_REMOVED_HERE : VERSION_THERE;
			break;
		case HEAPTUPLE_RECENTLY_DEAD:
			if (XidInMVCCSnapshot(remover, begun))
				state = VERSION_THERE;
			break;
		case HEAPTUPLE_DEAD:
			break;
	}
	LockBuffer(buffered->buffer, BUFFER_LOCK_UNLOCK);
	return state;
}

/*
 * Count the tasks that an owner has, those included that other transactions in
 * progress have added or are about to remove; and, apart from that, how many it
 * has had that this transaction is about to remove.  The sum is what there
 * could be in the end, whatever becomes of all of them.  Count no further than
 * to one more than limit.
 *
 * Look at all versions of the rows, and at all that have been there since
 * the count began: a task that is replaced meanwhile may have its new version
 * at a place that the scan has passed.  So it is the task_ids that are counted,
 * which come in order.
 */
int
store_count_owned(Store *store, Oid owner, int limit, int *removed)
{
	Snapshot	begun = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyData key;
	IndexScanDesc scan;
	text	   *last = NULL;
	bool		last_counted = false;
	int			n = 0;

	*removed = 0;
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(owner));
	scan = compat_index_beginscan(store->task, store_index(store, TASK_KEY), SnapshotAny, 1);
	index_rescan(scan, &key, 1, NULL, 0);
	while (n <= limit && index_getnext_slot(scan, ForwardScanDirection, store->task_slot))
	{
		bool		there;
		bool		isnull;
		text	   *task_id;

		CHECK_FOR_INTERRUPTS();
		switch (store_version_state(store->task_slot, begun))
		{
			case VERSION_THERE:
				there = true;
				break;
			case VERSION_REMOVED_HERE:
				there = false;
				break;
			default:
				continue;
		}

		/* versions of a task come one after the other */
		task_id = DatumGetTextPCopy(slot_getattr(store->task_slot, Anum_task_task_id, &isnull));
		if (last == NULL || VARSIZE(last) != VARSIZE(task_id) ||
			memcmp(last, task_id, VARSIZE(last)) != 0)
		{
			n += there ? 1 : 0;
			*removed += there ? 0 : 1;
			last_counted = there;
		}
		else if (there && !last_counted)
		{
			/* removed and added again, or replaced */
			n++;
			(*removed)--;
			last_counted = true;
		}
		if (last != NULL)
			pfree(last);
		last = task_id;
	}
	index_endscan(scan);
	ExecClearTuple(store->task_slot);
	UnregisterSnapshot(begun);
	return n;
}
