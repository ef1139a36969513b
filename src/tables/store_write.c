/*-------------------------------------------------------------------------
 *
 * store_write.c
 *		Locking and writing rows of the tables task and alarm.
 *
 * Lock order: a task's alarm is locked before its task row is written.  All
 * of a task's changes therefore queue at its alarm.
 *
 * A run comes back to rows that it has read, and a row has not moved unless
 * somebody has changed it: it is locked or deleted at the place where it was
 * (RowTids), and looked for in an index only if it is not there any more.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "tables/tables.h"

/* Counts what this process has written or locked, from 1 on. */
static uint64 writes = 1;

/* Lock the alarm at row->tid, or its newest version, and read that. */
static TM_Result
store_lock_version(Store *store, AlarmRow *row, LockWaitPolicy wait_policy)
{
	TM_Result	result;
	TM_FailureData tmfd;

	writes++;
	result = table_tuple_lock(store->alarm, &row->tid, SnapshotAny, store->alarm_slot,
							  GetCurrentCommandId(false), LockTupleExclusive,
							  wait_policy, TUPLE_LOCK_FLAG_FIND_LAST_VERSION,
							  &tmfd);
	if (result != TM_Ok)
	{
		ExecClearTuple(store->alarm_slot);
		return result;
	}

	store_copy_alarm(store, row);
	ExecClearTuple(store->alarm_slot);
	return TM_Ok;
}

/*
 * Lock a task's alarm against all other writers until the end of the
 * transaction, and read its newest version.  Return TM_Ok, TM_Deleted if the
 * task is gone, or, if the policy is not to wait for them, TM_WouldBlock.
 */
TM_Result
store_lock_alarm(Store *store, int64 id, AlarmRow *row, LockWaitPolicy wait_policy)
{
	TM_Result	result;

	if (!store_get_alarm(store, id, row))
		return TM_Deleted;
	result = store_lock_version(store, row, wait_policy);
	if (result != TM_Ok && result != TM_Deleted && result != TM_WouldBlock)
		elog(ERROR, "unexpected result %d of locking the alarm of task " INT64_FORMAT,
			 (int) result, id);
	return result;
}

/* Remember where a task's rows are, for somebody who comes back to them. */
void
store_remember(Store *store, const TaskRow *task, const AlarmRow *alarm, RowTids *tids)
{
	tids->known = !compat_snapshots_expire();
	tids->task = task->tid;
	tids->task_file = store->task->rd_rel->relfilenode;
	tids->alarm = alarm->tid;
	tids->alarm_file = store->alarm->rd_rel->relfilenode;
	tids->writes = 0;
}

/*
 * Rely on the rows' being as they are unless this process writes any, in this
 * transaction: for who can bear an error if somebody has done so by hand.
 */
void
store_rely_on(RowTids *tids)
{
	tids->writes = writes;
}

/*
 * Lock an alarm, as store_lock_alarm does, whose place is known, without
 * looking for it in the index again.  A snapshot that is older than that
 * knowledge must have been kept ever since, so that nobody can have cleared the
 * place and put another row there.
 */
TM_Result
store_relock_alarm(Store *store, int64 id, const RowTids *tids, AlarmRow *row,
				   LockWaitPolicy wait_policy)
{
	TM_Result	result;

	/* (VACUUM FULL and the like give a table a new file) */
	if (!tids->known || tids->alarm_file != store->alarm->rd_rel->relfilenode)
		return store_lock_alarm(store, id, row, wait_policy);
	row->tid = tids->alarm;
	result = store_lock_version(store, row, wait_policy);

	/* this transaction may have changed it itself, by hand even its id */
	if (result == TM_Deleted || result == TM_WouldBlock ||
		(result == TM_Ok && ROW_GET(Int64, row, alarm_id) == id))
		return result;
	return store_lock_alarm(store, id, row, wait_policy);
}

/*
 * If somebody is about to remove a task, wait for the end of that transaction
 * and return true.  The task is gone then, or it is not.
 */
bool
store_await_removal(Store *store, int64 id)
{
	SnapshotData dirty;
	ScanKeyData key;
	IndexScanDesc scan;
	TransactionId remover = InvalidTransactionId;
	ItemPointerData tid;

	InitDirtySnapshot(dirty);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(id));
	scan = compat_index_beginscan(store->alarm, store_index(store, ALARM_TASK), &dirty, 1);
	index_rescan(scan, &key, 1, NULL, 0);
	while (!TransactionIdIsValid(remover) &&
		   index_getnext_slot(scan, BackwardScanDirection, store->alarm_slot))
	{
		bool		should_free;
		HeapTuple	tuple = ExecFetchSlotHeapTuple(store->alarm_slot, false, &should_free);

		/*
		 * a row that is being updated points to its new version, not to
		 * itself
		 */
		if (TransactionIdIsValid(dirty.xmax) &&
			ItemPointerEquals(&tuple->t_self, &tuple->t_data->t_ctid))
		{
			remover = dirty.xmax;
			tid = tuple->t_self;
		}
	}
	index_endscan(scan);
	ExecClearTuple(store->alarm_slot);

	if (!TransactionIdIsValid(remover))
		return false;
	XactLockTableWait(remover, store->alarm, &tid, XLTW_Delete);
	return true;
}

static void
store_fill_slot(TupleTableSlot *slot, const Datum *values, const bool *nulls, int natts)
{
	ExecClearTuple(slot);
	memcpy(slot->tts_values, values, natts * sizeof(Datum));
	memcpy(slot->tts_isnull, nulls, natts * sizeof(bool));
	ExecStoreVirtualTuple(slot);
}

/* Remember where a task's row is now, for its alarm, which is written after it. */
static void
store_note_task(Store *store, const TaskRow *row)
{
	store->written_id = ROW_GET(Int64, row, task_id);
	store->written_tid = store->task_slot->tts_tid;
}

/* Write into an alarm where the row of its task is, if that has just been written. */
static void
store_point_to_task(Store *store, AlarmRow *row)
{
	if (ItemPointerIsValid(&store->written_tid) &&
		store->written_id == ROW_GET(Int64, row, alarm_id))
		ROW_SET(Pointer, row, alarm_task_tid, &store->written_tid);
}

/* Insert a task whose owner and task_id cannot be there already. */
void
store_insert_task(Store *store, TaskRow *row)
{
	writes++;
	store_fill_slot(store->task_slot, row->values, row->nulls, Natts_task);
	table_writer_insert(store_task_writer(store), store->task_slot);
	store_note_task(store, row);
	ExecClearTuple(store->task_slot);
}

/*
 * Insert a task unless its owner has one of that task_id.  Wait for other
 * transactions that are about to add or remove it; or unless wait, take it for being
 * there.  Return false if there is one, which may be gone again when the caller looks.
 */
bool
store_try_insert_task(Store *store, TaskRow *row, bool wait)
{
	bool		inserted;

	writes++;
	store_fill_slot(store->task_slot, row->values, row->nulls, Natts_task);
	inserted = table_writer_try_insert(store_task_writer(store), store->task_slot,
									   store_index_relid(TASK_KEY), wait);
	if (inserted)
		store_note_task(store, row);
	ExecClearTuple(store->task_slot);
	return inserted;
}

/* Write a new version of a task's row.  The caller has the task's alarm locked. */
void
store_update_task(Store *store, TaskRow *row)
{
	writes++;
	store_fill_slot(store->task_slot, row->values, row->nulls, Natts_task);
	table_writer_update(store_task_writer(store), &row->tid, store->task_slot);
	store_note_task(store, row);
	ExecClearTuple(store->task_slot);
}

/* Delete a task's row.  The caller has the task's alarm locked. */
void
store_delete_task(Store *store, TaskRow *row)
{
	writes++;
	simple_table_tuple_delete(store->task, &row->tid, SnapshotAny);
}

/*
 * Delete the row of a task at a place where it was seen, under the conditions
 * of store_relock_alarm.  Return false, and do nothing, if anybody has changed
 * it since, or is about to: it is then to be looked for.
 */
static bool
store_try_delete_at(Relation rel, TupleTableSlot *slot, AttrNumber id_column, ItemPointerData tid,
					int64 id, bool relied_on)
{
	if (!relied_on)
	{
		bool		isnull;
		bool		same;

		/* (what this transaction has changed itself cannot even be tried) */
		if (!table_tuple_fetch_row_version(rel, &tid, SnapshotSelf, slot))
			return false;
		same = (DatumGetInt64(slot_getattr(slot, id_column, &isnull)) == id);
		ExecClearTuple(slot);
		if (!same)
			return false;
	}
	return compat_try_delete_tuple(rel, &tid);
}

void
store_insert_alarm(Store *store, AlarmRow *row)
{
	writes++;
	store_point_to_task(store, row);
	store_fill_slot(store->alarm_slot, row->values, row->nulls, Natts_alarm);
	table_writer_insert(store_alarm_writer(store), store->alarm_slot);
	ExecClearTuple(store->alarm_slot);
}

/* Write a new version of an alarm's row, which the caller has locked. */
void
store_update_alarm(Store *store, AlarmRow *row)
{
	writes++;
	store_point_to_task(store, row);
	store_fill_slot(store->alarm_slot, row->values, row->nulls, Natts_alarm);
	table_writer_update(store_alarm_writer(store), &row->tid, store->alarm_slot);
	ExecClearTuple(store->alarm_slot);
}

/* Delete an alarm's row, which the caller has locked. */
void
store_delete_alarm(Store *store, AlarmRow *row)
{
	writes++;
	simple_table_tuple_delete(store->alarm, &row->tid, SnapshotAny);
}

/*
 * Delete an alarm that is as it was when its place was noted.  Return false if
 * it is not, or that cannot be told.  So it need not be locked first, which
 * would be a change of the row and a WAL record by itself.
 */
bool
store_try_delete_alarm_at(Store *store, int64 id, const RowTids *tids)
{
	return tids->known && tids->alarm_file == store->alarm->rd_rel->relfilenode &&
		store_try_delete_at(store->alarm, store->alarm_slot, Anum_alarm_id, tids->alarm, id,
							tids->writes == writes);
}

/*
 * Delete a task, as store_delete_task does, whose place may be known, as with
 * store_relock_alarm.
 */
void
store_delete_task_at(Store *store, int64 id, const RowTids *tids)
{
	TaskRow		row;

	if (tids->known && tids->task_file == store->task->rd_rel->relfilenode &&
		store_try_delete_at(store->task, store->task_slot, Anum_task_id, tids->task, id,
							tids->writes == writes))
		return;
	if (store_get_task(store, id, &row))
		store_delete_task(store, &row);
}
