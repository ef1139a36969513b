/*-------------------------------------------------------------------------
 *
 * parent_results.c
 *		What a callback can ask about the tasks that its own has run after.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "worker/worker.h"

/* Which attribute of the result is which column of an edge. */
static const struct
{
	const char *name;
	Oid			type;
	AttrNumber	column;
}			attributes[] =

{
	{"task_id", TEXTOID, Anum_edge_task_id},
	{"status", TEXTOID, Anum_edge_status},
	{"result", TEXTOID, Anum_edge_result},
	{"sqlstate", TEXTOID, Anum_edge_sqlstate},
	{"message", TEXTOID, Anum_edge_message},
	{"run_at", TIMESTAMPTZOID, Anum_edge_run_at},
	{"finished_at", TIMESTAMPTZOID, Anum_edge_done_at}
};

/*
 * Tell of those that have ended, in the order of their ids.  Only the code of a run sees
 * anything.
 */
PG_FUNCTION_INFO_V1(ts_parent_results);
Datum
ts_parent_results(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Store	   *store;
	EdgeScan	scan;
	EdgeRow		edge;
	List	   *edges = NIL;
	ListCell   *cell;

	InitMaterializedSRF(fcinfo, 0);
	if (current_run == NULL || !current_run->start.follows)
		return (Datum) 0;

	/* they are read from the other end */
	store = store_open(AccessShareLock);
	edges_begin(store, &scan, current_run->start.id, PG_INT64_MAX, true);
	while (edges_next(&scan, &edge))
	{
		EdgeRow    *kept;

		if (ROW_ISNULL(&edge, edge_done_at))
			continue;
		kept = palloc(sizeof(EdgeRow));
		*kept = edge;
		edges = lcons(kept, edges);
	}
	edges_end(&scan);

	foreach(cell, edges)
	{
		const EdgeRow *kept = lfirst(cell);
		NamedRow	row;

		named_row_of(&row, rsinfo->setDesc);
		for (int i = 0; i < lengthof(attributes); i++)
		{
			if (!kept->nulls[attributes[i].column - 1])
				named_row_set(&row, attributes[i].name, attributes[i].type,
							  kept->values[attributes[i].column - 1]);
		}
		tuplestore_putvalues(rsinfo->setResult, row.desc, row.values, row.nulls);
	}
	store_close(store, AccessShareLock);
	return (Datum) 0;
}
