/*-------------------------------------------------------------------------
 *
 * current_task.c
 *		What a callback can ask about its own run.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "worker/worker.h"

/* The run whose callback is being called. */
Run		   *current_run = NULL;

/*
 * Tell of the run in progress.  Only the code of a run sees anything, and nothing
 * that it could set has an influence.
 */
PG_FUNCTION_INFO_V1(ts_current_task);
Datum
ts_current_task(PG_FUNCTION_ARGS)
{
	const Run  *run = current_run;
	NamedRow	row;
	Interval   *lag;

	if (run == NULL)
		PG_RETURN_NULL();
	lag = palloc0(sizeof(Interval));
	/* (one that waits for others is late from when it was due) */
	lag->time = run->start.started_at -
		(run->start.lasting && run->start.late_from != DT_NOEND ?
		 Max(run->start.late_from, run->start.scheduled_at) : run->start.scheduled_at);

	named_row_begin(&row, fcinfo);
	named_row_set(&row, "task_id", TEXTOID, CStringGetTextDatum(run->start.task_id));
	if (run->start.group_id != NULL)
		named_row_set(&row, "group_id", TEXTOID, CStringGetTextDatum(run->start.group_id));
	named_row_set(&row, "run_at", TIMESTAMPTZOID, TimestampTzGetDatum(run->start.scheduled_at));
	/* of an earlier run that was cut off only a procedure has left anything */
	named_row_set(&row, "attempt", INT4OID,
				  Int32GetDatum(run->start.attempt + (run->begun != 0 ? run->start.restarts : 0)));
	named_row_set(&row, "lag", INTERVALOID, IntervalPGetDatum(lag));
	if (run->start.previous_run_at != DT_NOBEGIN)
		named_row_set(&row, "previous_run_at", TIMESTAMPTZOID,
					  TimestampTzGetDatum(run->start.previous_run_at));
	PG_RETURN_DATUM(named_row_datum(&row));
}
