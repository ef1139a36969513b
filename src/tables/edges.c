/*-------------------------------------------------------------------------
 *
 * edges.c
 *		The table edge: which tasks run after which.
 *
 * An edge joins a task, the child, to another, the parent, that it runs after.  It
 * has what became of the parent, too, so that the child can read it when the parent is
 * gone.
 *
 * An edge is written under the lock of the child's alarm, and is added under that of
 * the parent's as well.  (A run that is an open parent itself adds others to its child
 * without the child's lock: the child waits for its end in any case.)  So who has the
 * child's lock can read its edges as they are, and who has the parent's knows of all its
 * children, although each may be written at this moment.
 *
 * Nothing that changes is in an index, and pages have room left, so marking an edge is an
 * update in place.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/tableam.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "tables/tables.h"

/*
 * Return whether there can be any edges, for who would have to look for many: where
 * nobody has ever used them there are none.
 */
bool
edges_exist(Store *store)
{
	return RelationGetNumberOfBlocks(store_edge(store)) > 0;
}

/*
 * Collect the ids of the tasks that run after one, as an array of *n.  The caller has that
 * one's alarm locked, or can do with those that there are at this moment.  What this
 * command has written is not seen.
 */
int64 *
edges_children(Store *store, int64 parent, int *n)
{
	Relation	edge = store_edge(store);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	IndexScanDesc scan;
	ScanKeyData key;
	int			size = 16;
	int64	   *children = palloc(size * sizeof(int64));

	/* (to miss none that is being written, as store_find.c tells) */
	*n = 0;
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(parent));
	scan = compat_index_beginscan(edge, store_index(store, EDGE_PARENT), SnapshotAny, 1);
	index_rescan(scan, &key, 1, NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, store->edge_slot))
	{
		bool		isnull;

		if (!store_sees(snapshot, store->edge_slot))
			continue;
		if (*n == size)
		{
			size *= 2;
			children = repalloc_huge(children, size * sizeof(int64));
		}
		children[(*n)++] = DatumGetInt64(slot_getattr(store->edge_slot, Anum_edge_child, &isnull));
	}
	index_endscan(scan);
	ExecClearTuple(store->edge_slot);
	UnregisterSnapshot(snapshot);
	return children;
}

/* Copy the edge in the slot into the current memory context. */
static void
edges_copy(Store *store, EdgeRow *row)
{
	HeapTuple	tuple = ExecCopySlotHeapTuple(store->edge_slot);

	row->tid = store->edge_slot->tts_tid;
	heap_deform_tuple(tuple, RelationGetDescr(store->edge), row->values, row->nulls);
}

/* Find an edge.  The caller has the child's alarm locked. */
bool
edges_get(Store *store, int64 child, int64 parent, EdgeRow *row)
{
	Relation	edge = store_edge(store);
	IndexScanDesc scan;
	ScanKeyData keys[2];
	bool		found;

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(child));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(parent));
	scan = compat_index_beginscan(edge, store_index(store, EDGE_PKEY), SnapshotSelf, 2);
	index_rescan(scan, keys, 2, NULL, 0);
	found = index_getnext_slot(scan, BackwardScanDirection, store->edge_slot);
	if (found)
		edges_copy(store, row);
	index_endscan(scan);
	ExecClearTuple(store->edge_slot);
	return found;
}

/*
 * Begin to read the edges of a child, from that to a parent of a certain id downwards.
 * The caller has the child's alarm locked, or only wants to see, and may write the edges
 * that it has read.  If keep, they stay in the current memory context; otherwise each lasts
 * until the next one is read.
 */
void
edges_begin(Store *store, EdgeScan *scan, int64 child, int64 from, bool keep)
{
	Relation	edge = store_edge(store);
	ScanKeyData keys[2];

	scan->store = store;
	scan->met = false;
	scan->rows = keep ? NULL : AllocSetContextCreate(CurrentMemoryContext, "taskshed edge",
													 ALLOCSET_SMALL_SIZES);
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(child));
	ScanKeyInit(&keys[1], 2, BTLessEqualStrategyNumber, F_INT8LE, Int64GetDatum(from));
	scan->scan = compat_index_beginscan(edge, store_index(store, EDGE_PKEY), SnapshotSelf, 2);
	index_rescan(scan->scan, keys, 2, NULL, 0);
}

/*
 * Return whether there is another edge.  One that the caller has written meanwhile is not
 * met again.
 */
bool
edges_next(EdgeScan *scan, EdgeRow *row)
{
	TupleTableSlot *slot = scan->store->edge_slot;

	while (index_getnext_slot(scan->scan, BackwardScanDirection, slot))
	{
		bool		isnull;
		int64		parent = DatumGetInt64(slot_getattr(slot, Anum_edge_parent, &isnull));

		if (scan->met && parent == scan->parent)
			continue;
		scan->met = true;
		scan->parent = parent;
		if (scan->rows == NULL)
			edges_copy(scan->store, row);
		else
		{
			MemoryContext old = MemoryContextSwitchTo(scan->rows);

			MemoryContextReset(scan->rows);
			edges_copy(scan->store, row);
			MemoryContextSwitchTo(old);
		}
		return true;
	}
	return false;
}

void
edges_end(EdgeScan *scan)
{
	index_endscan(scan->scan);
	ExecClearTuple(scan->store->edge_slot);
	if (scan->rows != NULL)
		MemoryContextDelete(scan->rows);
}

/* Fill in an edge that is open; task_id is the parent's. */
void
edges_fill(EdgeRow *row, int64 child, int64 parent, Datum task_id)
{
	memset(row->values, 0, sizeof(row->values));
	memset(row->nulls, true, sizeof(row->nulls));
	ROW_SET(Int64, row, edge_child, child);
	ROW_SET(Int64, row, edge_parent, parent);
	ROW_SET(Pointer, row, edge_task_id, DatumGetPointer(task_id));
}

static void
edges_fill_slot(Store *store, const EdgeRow *row)
{
	TupleTableSlot *slot = store->edge_slot;

	ExecClearTuple(slot);
	memcpy(slot->tts_values, row->values, sizeof(row->values));
	memcpy(slot->tts_isnull, row->nulls, sizeof(row->nulls));
	ExecStoreVirtualTuple(slot);
}

/* Add an edge that is not there yet. */
void
edges_insert(Store *store, EdgeRow *row)
{
	Writer	   *writer = store_edge_writer(store);

	edges_fill_slot(store, row);
	table_writer_insert(writer, store->edge_slot);
	ExecClearTuple(store->edge_slot);
}

/* Write an edge that was read.  The caller has the child's alarm locked. */
void
edges_update(Store *store, EdgeRow *row)
{
	Writer	   *writer = store_edge_writer(store);

	edges_fill_slot(store, row);
	table_writer_update(writer, &row->tid, store->edge_slot);
	ExecClearTuple(store->edge_slot);
}

/* Delete an edge that was read.  The caller has the child's alarm locked. */
void
edges_delete(Store *store, EdgeRow *row)
{
	simple_table_tuple_delete(store_edge(store), &row->tid, SnapshotAny);
}

/* Delete all edges of a child, whose alarm the caller has locked. */
void
edges_delete_all(Store *store, int64 child)
{
	EdgeScan	scan;
	EdgeRow		row;

	edges_begin(store, &scan, child, PG_INT64_MAX, false);
	while (edges_next(&scan, &row))
		edges_delete(store, &row);
	edges_end(&scan);
}
