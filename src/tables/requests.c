/*-------------------------------------------------------------------------
 *
 * requests.c
 *		The table request: which tasks somebody asks for a run of.
 *
 * Whoever asks for a run inserts a row, and nothing else: it locks nothing that another
 * could have or want, so nobody waits for anybody.  The scheduler is told the number of the
 * row at the commit, and deletes it.  Nothing ever looks for the rows of a task: behind an
 * old snapshot it would meet all that there have been.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/tableam.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "tables/tables.h"

/* Ask for a run of a task.  Return the number of the request. */
int64
requests_insert(Store *store, int64 id)
{
	Writer	   *writer = store_request_writer(store);
	TupleTableSlot *slot = store->request_slot;
	int64		number = store_new_id();

	ExecClearTuple(slot);
	slot->tts_values[Anum_request_number - 1] = Int64GetDatum(number);
	slot->tts_isnull[Anum_request_number - 1] = false;
	slot->tts_values[Anum_request_id - 1] = Int64GetDatum(id);
	slot->tts_isnull[Anum_request_id - 1] = false;
	ExecStoreVirtualTuple(slot);
	table_writer_insert(writer, slot);
	ExecClearTuple(slot);
	return number;
}

/* Read up to max requests that a condition on their numbers selects, in the order of these. */
static int
requests_scan(Store *store, StrategyNumber strategy, RegProcedure compare, int64 number,
			  Request *requests, int max)
{
	Relation	request = store_request(store);
	TupleTableSlot *slot = store->request_slot;
	IndexScanDesc scan;
	ScanKeyData key;
	int			n = 0;

	ScanKeyInit(&key, 1, strategy, compare, Int64GetDatum(number));
	scan = compat_index_beginscan(request, store_index(store, REQUEST_NUMBER),
								  GetActiveSnapshot(), 1);
	index_rescan(scan, &key, 1, NULL, 0);
	while (n < max && index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;

		requests[n].number = DatumGetInt64(slot_getattr(slot, Anum_request_number, &isnull));
		requests[n].id = DatumGetInt64(slot_getattr(slot, Anum_request_id, &isnull));
		requests[n++].tid = slot->tts_tid;
	}
	index_endscan(scan);
	ExecClearTuple(slot);
	return n;
}

/* Read the request of a number, if it is there. */
bool
requests_get(Store *store, int64 number, Request *request)
{
	return requests_scan(store, BTEqualStrategyNumber, F_INT8EQ, number, request, 1) > 0;
}

/* Read up to max requests from a number on.  Return how many; fewer: there are no more. */
int
requests_read(Store *store, int64 from, Request *requests, int max)
{
	return requests_scan(store, BTGreaterEqualStrategyNumber, F_INT8GE, from, requests, max);
}

/* Delete a request that was read, unless somebody else is doing so by hand. */
void
requests_delete(Store *store, Request *request)
{
	(void) compat_try_delete_tuple(store_request(store), &request->tid);
}
