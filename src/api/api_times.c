/*-------------------------------------------------------------------------
 *
 * api_times.c
 *		Moving tasks to other times.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "api/api.h"

/* Move one task: a TaskChange. */
static bool
change_run_at(Store *store, AlarmRow *alarm, TimestampTz run_at)
{
	ROW_SET(TimestampTz, alarm, alarm_scheduled_at, run_at);
	ROW_SET(TimestampTz, alarm, alarm_anchor, run_at);
	return change_schedule(store, alarm, run_at);
}

PG_FUNCTION_INFO_V1(ts_update_execution_time);
Datum
ts_update_execution_time(PG_FUNCTION_ARGS)
{
	Oid			owner;
	Store	   *store;
	bool		changed;

	check_writable("taskshed.update_execution_time()");
	owner = check_owner(PG_ARGISNULL(2) ? NULL : NameStr(*PG_GETARG_NAME(2)));
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("run_at must not be null"),
				 errhint("Give the time, as in run_at => now() + interval '1 hour'.")));
	check_run_at(PG_GETARG_TIMESTAMPTZ(1));
	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(false);

	store = store_open(RowExclusiveLock);
	changed = change_by_name(store, owner, PointerGetDatum(PG_GETARG_TEXT_PP(0)),
							 change_run_at, PG_GETARG_TIMESTAMPTZ(1));
	store_close(store, NoLock);
	PG_RETURN_BOOL(changed);
}

typedef struct NewTime
{
	Datum		task_id;
	TimestampTz run_at;
} NewTime;

static int
new_time_cmp(const void *a, const void *b)
{
	return change_name_cmp(&((const NewTime *) a)->task_id, &((const NewTime *) b)->task_id);
}

/* Get the pairs of an array of task_execution_time, in the order of task_ids. */
static int
change_sorted_times(ArrayType *array, NewTime **times)
{
	Oid			type = ARR_ELEMTYPE(array);
	int16		typlen;
	bool		typbyval;
	char		typalign;
	TupleDesc	desc = lookup_rowtype_tupdesc(type, -1);
	Datum	   *elements;
	bool	   *element_nulls;
	int			n;
	int			kept = 0;

	get_typlenbyvalalign(type, &typlen, &typbyval, &typalign);
	deconstruct_array(array, type, typlen, typbyval, typalign, &elements, &element_nulls, &n);
	*times = palloc((n + 1) * sizeof(NewTime));
	for (int i = 0; i < n; i++)
	{
		HeapTupleHeader record;
		HeapTupleData tuple;
		Datum		values[2];
		bool		nulls[2];

		if (element_nulls[i])
			continue;
		record = DatumGetHeapTupleHeader(elements[i]);
		tuple.t_len = HeapTupleHeaderGetDatumLength(record);
		ItemPointerSetInvalid(&tuple.t_self);
		tuple.t_tableOid = InvalidOid;
		tuple.t_data = record;
		heap_deform_tuple(&tuple, desc, values, nulls);
		if (nulls[0])
			continue;
		if (nulls[1])
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("run_at of task \"%s\" must not be null",
							TextDatumGetCString(values[0]))));
		(*times)[kept].task_id = PointerGetDatum(DatumGetTextPP(values[0]));
		(*times)[kept].run_at = DatumGetTimestampTz(values[1]);
		check_run_at((*times)[kept].run_at);
		kept++;
	}
	ReleaseTupleDesc(desc);

	qsort(*times, kept, sizeof(NewTime), new_time_cmp);
	for (int i = 1; i < kept; i++)
	{
		if (new_time_cmp(&(*times)[i - 1], &(*times)[i]) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("task_id \"%s\" is given twice",
							TextDatumGetCString((*times)[i].task_id))));
	}
	return kept;
}

PG_FUNCTION_INFO_V1(ts_update_execution_times);
Datum
ts_update_execution_times(PG_FUNCTION_ARGS)
{
	Oid			owner;
	NewTime    *times;
	int			n;
	Store	   *store;
	int			changed = 0;

	check_writable("taskshed.update_execution_times()");
	owner = check_owner(PG_ARGISNULL(1) ? NULL : NameStr(*PG_GETARG_NAME(1)));
	/* array_agg makes NULL of no rows */
	if (PG_ARGISNULL(0))
		PG_RETURN_INT32(0);
	n = change_sorted_times(PG_GETARG_ARRAYTYPE_P(0), &times);

	store = store_open(RowExclusiveLock);
	for (int i = 0; i < n; i++)
		changed += change_by_name(store, owner, times[i].task_id, change_run_at, times[i].run_at);
	store_close(store, NoLock);
	PG_RETURN_INT32(changed);
}
