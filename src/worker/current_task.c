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

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
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
	Run		   *run = current_run;
	TupleDesc	desc;
	Datum		values[6] = {0};
	bool		nulls[6] = {false};
	Interval   *lag;

	if (run == NULL)
		PG_RETURN_NULL();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	lag = palloc0(sizeof(Interval));
	lag->time = run->start.started_at - run->start.scheduled_at;
	values[0] = CStringGetTextDatum(run->start.task_id);
	if (run->start.group_id != NULL)
		values[1] = CStringGetTextDatum(run->start.group_id);
	nulls[1] = (run->start.group_id == NULL);
	values[2] = TimestampTzGetDatum(run->start.scheduled_at);
	/* of an earlier run that was cut off only a procedure has left anything */
	values[3] = Int32GetDatum(run->start.attempt + (run->begun != 0 ? run->start.restarts : 0));
	values[4] = IntervalPGetDatum(lag);
	values[5] = TimestampTzGetDatum(run->start.previous_run_at);
	nulls[5] = (run->start.previous_run_at == DT_NOBEGIN);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
