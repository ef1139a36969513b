/*-------------------------------------------------------------------------
 *
 * queue.c
 *		Reading alarms in the order they are due.
 *
 * The index alarm_queue (owner, run_at, id) holds the alarms that will go
 * off: neither paused nor failed.  Each owner's part of it is a queue of its
 * own, so that the backlog of one owner need not be read to find the next
 * task of another.
 *
 * Reading starts after a place that the reader remembers.  The entries before
 * it, which an old snapshot may keep from being cleaned away long after their
 * tasks have run, are not visited again.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/nbtree.h"
#include "access/tableam.h"
#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#include "tables/tables.h"

/* Column numbers within alarm_queue. */
#define QUEUE_OWNER		1
#define QUEUE_RUN_AT	2
#define QUEUE_ID		3

/*
 * Read up to max tasks of an owner's queue that come after a place.  Return how
 * many; fewer than max means that these were the last.
 */
int
queue_read(Store *store, Snapshot snapshot, Oid owner,
		   const QueueKey *after, QueueEntry *entries, int max)
{
	ScanKeyData scankeys[2];
	ScanKeyData row[2];
	IndexScanDesc scan;
	int			n = 0;

	/* owner = $1 AND (run_at, id) > ($2, $3) */
	ScanKeyInit(&scankeys[0], QUEUE_OWNER, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(owner));
	ScanKeyEntryInitialize(&row[0], SK_ROW_MEMBER, QUEUE_RUN_AT,
						   BTGreaterStrategyNumber, TIMESTAMPTZOID, InvalidOid,
						   F_TIMESTAMPTZ_CMP, TimestampTzGetDatum(after->run_at));
	ScanKeyEntryInitialize(&row[1], SK_ROW_MEMBER | SK_ROW_END, QUEUE_ID,
						   BTGreaterStrategyNumber, INT8OID, InvalidOid,
						   F_BTINT8CMP, Int64GetDatum(after->id));
	MemSet(&scankeys[1], 0, sizeof(ScanKeyData));
	scankeys[1].sk_flags = SK_ROW_HEADER;
	scankeys[1].sk_attno = QUEUE_RUN_AT;
	scankeys[1].sk_strategy = BTGreaterStrategyNumber;
	scankeys[1].sk_argument = PointerGetDatum(row);

	scan = compat_index_beginscan(store->alarm, store_index(store, ALARM_QUEUE),
								  snapshot, 2);
	index_rescan(scan, scankeys, 2, NULL, 0);
	while (n < max &&
		   index_getnext_slot(scan, ForwardScanDirection, store->alarm_slot))
	{
		QueueEntry *entry = &entries[n++];
		bool		isnull;

		entry->key.run_at = DatumGetTimestampTz(slot_getattr(store->alarm_slot,
															 Anum_alarm_run_at, &isnull));
		entry->key.id = DatumGetInt64(slot_getattr(store->alarm_slot, Anum_alarm_id, &isnull));
		entry->interruptions = DatumGetInt32(slot_getattr(store->alarm_slot,
														  Anum_alarm_interruptions, &isnull));
		entry->alarm_tid = store->alarm_slot->tts_tid;
	}
	index_endscan(scan);
	ExecClearTuple(store->alarm_slot);
	return n;
}

/*
 * Return the next owner, by OID, with anything in the queue; InvalidOid at the
 * end.
 */
Oid
queue_next_owner(Store *store, Snapshot snapshot, Oid after)
{
	ScanKeyData key;
	IndexScanDesc scan;
	Oid			owner = InvalidOid;

	ScanKeyInit(&key, QUEUE_OWNER, BTGreaterStrategyNumber, F_OIDGT,
				ObjectIdGetDatum(after));
	scan = compat_index_beginscan(store->alarm, store_index(store, ALARM_QUEUE),
								  snapshot, 1);
	index_rescan(scan, &key, 1, NULL, 0);
	if (index_getnext_slot(scan, ForwardScanDirection, store->alarm_slot))
	{
		bool		isnull;

		owner = DatumGetObjectId(slot_getattr(store->alarm_slot,
											  Anum_alarm_owner, &isnull));
	}
	index_endscan(scan);
	ExecClearTuple(store->alarm_slot);
	return owner;
}

/*
 * Count the tasks that have failed for good, of all owners or of those for
 * which counts() is true.
 */
int64
queue_count_failed(Store *store, Snapshot snapshot, bool (*counts) (Oid owner))
{
	IndexScanDesc scan;
	int64		n = 0;

	scan = compat_index_beginscan(store->alarm, store_index(store, ALARM_FAILED),
								  snapshot, 0);
	index_rescan(scan, NULL, 0, NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, store->alarm_slot))
	{
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		if (counts == NULL ||
			counts(DatumGetObjectId(slot_getattr(store->alarm_slot, Anum_alarm_owner, &isnull))))
			n++;
	}
	index_endscan(scan);
	ExecClearTuple(store->alarm_slot);
	return n;
}

/*
 * Get the ids of up to max tasks that have failed before a time, the earliest
 * first.  Return how many.
 */
int
queue_read_failed(Store *store, Snapshot snapshot, TimestampTz before, int64 *ids, int max)
{
	IndexScanDesc scan;
	ScanKeyData key;
	int			n = 0;

	ScanKeyInit(&key, 1, BTLessStrategyNumber, F_TIMESTAMPTZ_LT, TimestampTzGetDatum(before));
	scan = compat_index_beginscan(store->alarm, store_index(store, ALARM_FAILED), snapshot, 1);
	index_rescan(scan, &key, 1, NULL, 0);
	while (n < max && index_getnext_slot(scan, ForwardScanDirection, store->alarm_slot))
	{
		bool		isnull;

		ids[n++] = DatumGetInt64(slot_getattr(store->alarm_slot, Anum_alarm_id, &isnull));
	}
	index_endscan(scan);
	ExecClearTuple(store->alarm_slot);
	return n;
}
