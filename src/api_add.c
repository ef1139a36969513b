/*-------------------------------------------------------------------------
 *
 * api_add.c
 *		add_task and add_tasks.
 *
 * Everything about a task is checked before anything is written.  Tasks that
 * the caller has named are then written in the order of their names, as all
 * bulk calls do it, so that two of them cannot deadlock.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_collation_d.h"
#include "catalog/pg_type_d.h"
#include "common/pg_prng.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "taskshed.h"

/* A task on its way into the tables. */
typedef struct NewTask
{
	TaskSpec	spec;
	char	   *callback;		/* schema-qualified, or an alias */
	bool		is_alias;
	int			element;		/* its place in add_tasks' array */
	Datum		task_id;		/* what is returned */
} NewTask;

/* The alias that was looked up last: the next task is likely to have the same. */
typedef struct LastAlias
{
	MemoryContext context;		/* what is here lives in it */
	Oid			owner;
	char	   *callback;		/* NULL before the first */
	char	   *target;			/* what it stands for, or NULL */
} LastAlias;

/*
 * A new task_id: 32 hex digits that begin with the time, so that new ids are
 * neighbours in the index, and go on with 80 random bits.
 */
static text *
add_generate_id(void)
{
	static const char hex[] = "0123456789abcdef";
	uint64		high;
	uint64		low = pg_prng_uint64(&pg_global_prng_state);
	text	   *id = palloc(VARHDRSZ + 32);

	high = ((uint64) GetCurrentTimestamp() / 1000) << 16;
	high |= pg_prng_uint64(&pg_global_prng_state) & 0xffff;
	SET_VARSIZE(id, VARHDRSZ + 32);
	for (int i = 0; i < 16; i++)
	{
		VARDATA(id)[i] = hex[(high >> (60 - 4 * i)) & 0xf];
		VARDATA(id)[16 + i] = hex[(low >> (60 - 4 * i)) & 0xf];
	}
	return id;
}

/* What a callback's name stands for if it is an alias, else NULL.  last may be NULL. */
static char *
add_find_alias(const TaskSpec *spec, LastAlias *last)
{
	char	   *target;

	if (last != NULL && last->callback != NULL && last->owner == spec->owner &&
		strcmp(last->callback, spec->callback) == 0)
		return last->target;
	target = alias_find(spec->owner, spec->callback);
	if (last != NULL)
	{
		if (last->callback != NULL)
			pfree(last->callback);
		if (last->target != NULL)
			pfree(last->target);
		last->owner = spec->owner;
		last->callback = MemoryContextStrdup(last->context, spec->callback);
		last->target = target == NULL ? NULL : MemoryContextStrdup(last->context, target);
	}
	return target;
}

/*
 * Finds out whether the callback can be called like this, and the name under
 * which it is stored: an alias as it is, for it may be re-pointed.
 */
static void
add_check_callback(NewTask *task, LastAlias *last)
{
	const TaskSpec *spec = &task->spec;
	char	   *target = add_find_alias(spec, last);

	task->is_alias = (target != NULL);
	if (spec->validate)
	{
		Callback   *callback = callback_prepare(task->is_alias ? target : spec->callback,
												spec->kwargs);

		callback_check_privilege(callback, spec->owner);
		task->callback = task->is_alias ? spec->callback : pstrdup(callback->qualified);
		call_check_values(callback, callback_bind(callback, spec->kwargs, pg_tzset(spec->timezone), true));
	}
	else
		task->callback = task->is_alias ? spec->callback : resolve_qualify(spec->callback);
}

/* Fills in all that a call of add_task determines of a task's row. */
static void
add_fill_task(TaskRow *row, const NewTask *task)
{
	const TaskSpec *spec = &task->spec;
	Name		owner_name = palloc(sizeof(NameData));

	namestrcpy(owner_name, GetUserNameFromId(spec->owner, false));
	ROW_SET(ObjectId, row, task_owner, spec->owner);
	ROW_SET(Name, row, task_owner_name, owner_name);
	ROW_SET(Pointer, row, task_task_id, spec->task_id);
	if (spec->group_id != NULL)
		ROW_SET(Pointer, row, task_group_id, spec->group_id);
	else
		ROW_SET_NULL(row, task_group_id);
	ROW_SET(Pointer, row, task_callback, cstring_to_text(task->callback));
	ROW_SET(Bool, row, task_is_alias, task->is_alias);
	ROW_SET(Pointer, row, task_kwargs, spec->kwargs);
	ROW_SET(Pointer, row, task_run_type,
			cstring_to_text(spec->recurring ? "recurring" : "once"));
	if (spec->every != NULL)
		ROW_SET(Pointer, row, task_every, spec->every);
	else
		ROW_SET_NULL(row, task_every);
	if (spec->schedule != NULL)
		ROW_SET(Pointer, row, task_schedule, spec->schedule);
	else
		ROW_SET_NULL(row, task_schedule);
	ROW_SET(Pointer, row, task_timezone, cstring_to_text(spec->timezone));
	ROW_SET(Pointer, row, task_catch_up, cstring_to_text(spec->catch_up));

	for (int attnum = Anum_task_until; attnum <= Natts_task; attnum++)
	{
		if (attnum != Anum_task_catch_up)
			row->nulls[attnum - 1] = true;
	}
	if (spec->has_until)
		ROW_SET(TimestampTz, row, task_until, spec->until);
	if (spec->max_runs > 0)
		ROW_SET(Int32, row, task_max_runs, spec->max_runs);
	if (spec->start_within != NULL)
		ROW_SET(Pointer, row, task_start_within, spec->start_within);
	if (spec->timeout != NULL)
		ROW_SET(Pointer, row, task_timeout, spec->timeout);
	if (spec->max_attempts >= 0)
		ROW_SET(Int32, row, task_max_attempts, spec->max_attempts);
	if (spec->retry_delay != NULL)
		ROW_SET(Pointer, row, task_retry_delay, spec->retry_delay);
	if (spec->retry_backoff > 0)
		ROW_SET(Float8, row, task_retry_backoff, spec->retry_backoff);
	if (spec->retry_max_delay != NULL)
		ROW_SET(Pointer, row, task_retry_max_delay, spec->retry_max_delay);
	if (spec->history != NULL)
		ROW_SET(Pointer, row, task_history, cstring_to_text(spec->history));
}

/*
 * What the transaction still takes makes no task late that was given no time.
 * Those that can be late at all are remembered until the commit.
 */
static void
add_forgive_delay(const TaskSpec *spec, int64 id, TimestampTz run_at)
{
	if (spec->has_run_at)
		return;
	if (spec->start_within != NULL)
		late_from_commit(id, run_at, spec_interval_usecs(spec->start_within));
	else if (strcmp(spec->catch_up, "skip") == 0)
		late_from_commit(id, run_at, SKIP_START_WITHIN);
}

/* Writes the alarm of a task that has none. */
static void
add_insert_alarm(Store *store, const TaskSpec *spec, int64 id, TimestampTz now)
{
	AlarmRow	row;
	TimestampTz run_at = spec_first_run(spec, now);

	memset(row.nulls, true, sizeof(row.nulls));
	memset(row.values, 0, sizeof(row.values));
	ROW_SET(Int64, &row, alarm_id, id);
	ROW_SET(TimestampTz, &row, alarm_run_at, run_at);
	ROW_SET(TimestampTz, &row, alarm_scheduled_at, run_at);
	ROW_SET(TimestampTz, &row, alarm_anchor, run_at);
	/* not one that the last task of that id may have had, if ids come again */
	ROW_SET(Int64, &row, alarm_revision, now);
	ROW_SET(Int64, &row, alarm_run_count, 0);
	ROW_SET(ObjectId, &row, alarm_owner, spec->owner);
	ROW_SET(Int32, &row, alarm_failures_in_row, 0);
	alarm_count_anew(&row);
	ROW_SET_NULL(&row, alarm_failed_at);
	if (spec->paused)
		ROW_SET(TimestampTz, &row, alarm_paused_at, now);
	store_insert_alarm(store, &row);
	add_forgive_delay(spec, id, run_at);
	if (!spec->paused)
		notes_add(run_at, id, spec->owner);
}

static bool
rows_equal(const TaskRow *a, const TaskRow *b, int attnum, TupleDesc desc)
{
	Form_pg_attribute att = TupleDescAttr(desc, attnum - 1);
	int			i = attnum - 1;

	if (a->nulls[i] || b->nulls[i])
		return a->nulls[i] && b->nulls[i];
	return datum_image_eq(a->values[i], b->values[i], att->attbyval, att->attlen);
}

/* Does it make a difference to a task's times in which time zone they are counted? */
static bool
add_needs_zone(const TaskSpec *spec)
{
	if (spec->schedule != NULL)
		return spec->calendar.schedule.period == 0;
	return spec->every != NULL && (spec->every->month != 0 || spec->every->day != 0);
}

/*
 * Replaces a task.  Its alarm is locked.  What the caller has left out is
 * kept where the documentation says so; a call that changes nothing of a
 * recurring task writes nothing.  But if again, the task has to run once more
 * although it is running.
 */
static void
add_replace(Store *store, const NewTask *task, TaskRow *old, AlarmRow *alarm,
			TimestampTz now, bool again)
{
	const TaskSpec *spec = &task->spec;
	TupleDesc	desc = RelationGetDescr(store->task);
	int64		id = ROW_GET(Int64, old, task_id);
	TaskRow		new = *old;
	bool		failed = !ROW_ISNULL(alarm, alarm_failed_at);
	bool		was_paused = !ROW_ISNULL(alarm, alarm_paused_at);
	bool		paused = spec->has_paused ? spec->paused : was_paused;
	bool		same_times;
	bool		same = true;

	add_fill_task(&new, task);
	for (int attnum = 1; same && attnum <= Natts_task; attnum++)
		same = rows_equal(&new, old, attnum, desc);
	same_times = rows_equal(&new, old, Anum_task_every, desc) &&
		rows_equal(&new, old, Anum_task_schedule, desc) &&
		(rows_equal(&new, old, Anum_task_timezone, desc) || !add_needs_zone(spec));

	if (same && !again && spec->recurring && !spec->has_run_at && !failed && paused == was_paused)
		return;

	if (!same)
		store_update_task(store, &new);

	if (spec->has_run_at || !same_times)
	{
		TimestampTz run_at = spec_first_run(spec, now);

		ROW_SET(TimestampTz, alarm, alarm_run_at, run_at);
		ROW_SET(TimestampTz, alarm, alarm_scheduled_at, run_at);
		ROW_SET(TimestampTz, alarm, alarm_anchor, run_at);
		ROW_SET_NULL(alarm, alarm_resume_at);
	}
	else if (!again)
	{
		/* its time as if there had been no run beside the schedule */
		if (!ROW_ISNULL(alarm, alarm_resume_at))
			ROW_SET(TimestampTz, alarm, alarm_run_at, ROW_GET(TimestampTz, alarm, alarm_resume_at));
		ROW_SET_NULL(alarm, alarm_resume_at);
		if (failed && !spec->recurring)
			ROW_SET(TimestampTz, alarm, alarm_scheduled_at, now);
		if (failed)
			ROW_SET(TimestampTz, alarm, alarm_run_at,
					ROW_GET(TimestampTz, alarm, alarm_scheduled_at));
	}
	alarm_raise_revision(alarm);
	ROW_SET_NULL(alarm, alarm_failed_at);
	if (again)
	{
		/* the run in progress may yet turn out to be interrupted */
		ROW_SET(Int32, alarm, alarm_attempt, 0);
		ROW_SET_NULL(alarm, alarm_begun_at);
	}
	else
		alarm_count_anew(alarm);
	if (again || read_is_running(id))
		ROW_SET(TimestampTz, alarm, alarm_late_from, now);
	else if (!same_times)
		add_forgive_delay(spec, id, ROW_GET(TimestampTz, alarm, alarm_scheduled_at));
	if (!paused)
		ROW_SET_NULL(alarm, alarm_paused_at);
	else if (!was_paused)
		ROW_SET(TimestampTz, alarm, alarm_paused_at, now);
	store_update_alarm(store, alarm);
	if (!paused)
		notes_add(ROW_GET(TimestampTz, alarm, alarm_run_at), id, spec->owner);
}

/*
 * With replace_existing => false an existing task stays as it is, unless it
 * has failed.  But what the caller wants done must be done after its commit:
 * a run in progress may have begun too early to see what the caller did, and
 * so may one that begins before the commit.  The former gets the new
 * definition; both are made to run again by raising the revision.
 */
static void
add_keep(Store *store, const NewTask *task, TaskRow *old, AlarmRow *alarm, TimestampTz now)
{
	int64		id = ROW_GET(Int64, old, task_id);

	bool		running = read_is_running(id);

	if (running || !ROW_ISNULL(alarm, alarm_failed_at))
	{
		add_replace(store, task, old, alarm, now, running);
		return;
	}
	alarm_raise_revision(alarm);
	if (ROW_ISNULL(alarm, alarm_late_from) ||
		ROW_GET(TimestampTz, alarm, alarm_late_from) < now)
		ROW_SET(TimestampTz, alarm, alarm_late_from, now);
	store_update_alarm(store, alarm);
	notes_add(ROW_GET(TimestampTz, alarm, alarm_run_at), id, task->spec.owner);
}

/* Is a task neither failed nor paused nor due, so that add_keep has nothing to do? */
static bool
add_leaves_alone(Store *store, int64 id, TimestampTz now)
{
	AlarmRow	alarm;

	return store_get_alarm(store, id, &alarm) &&
		ROW_ISNULL(&alarm, alarm_failed_at) &&
		(!ROW_ISNULL(&alarm, alarm_paused_at) ||
		 ROW_GET(TimestampTz, &alarm, alarm_run_at) > now) &&
		!read_is_running(id);
}

/* Writes one task; if it is a new one, its owner must be allowed one more. */
static void
add_write(Store *store, NewTask *task)
{
	TaskSpec   *spec = &task->spec;
	bool		named = (spec->task_id != NULL);
	TimestampTz now = GetCurrentTimestamp();

	if (!named)
		spec->task_id = add_generate_id();
	task->task_id = PointerGetDatum(spec->task_id);

	for (;;)
	{
		TaskRow		row;
		AlarmRow	alarm;
		int64		id;

		CHECK_FOR_INTERRUPTS();
		if (named && store_find_task(store, spec->owner, task->task_id, &row))
		{
			id = ROW_GET(Int64, &row, task_id);
			if (!spec->replace_existing && add_leaves_alone(store, id, now))
			{
				if (store_await_removal(store, id))
					continue;
				return;
			}
			if (store_lock_alarm(store, id, &alarm, LockWaitBlock) == TM_Ok)
			{
				/* who has waited for the lock finds another row */
				if (!store_get_task(store, id, &row))
					elog(ERROR, "task " INT64_FORMAT " has an alarm but no row", id);
				if (ROW_GET(ObjectId, &row, task_owner) != spec->owner)
					continue;	/* it has been given to another */
				if (spec->replace_existing)
					add_replace(store, task, &row, &alarm, now, false);
				else
					add_keep(store, task, &row, &alarm, now);
				return;
			}
			if (!store_get_task(store, id, &row))
				continue;		/* it has been removed meanwhile */

			/* somebody has deleted the alarm by hand */
			add_fill_task(&row, task);
			store_update_task(store, &row);
			add_insert_alarm(store, spec, id, now);
			return;
		}

		memset(row.nulls, true, sizeof(row.nulls));
		memset(row.values, 0, sizeof(row.values));
		id = store_new_id();
		ROW_SET(Int64, &row, task_id, id);
		ROW_SET(TimestampTz, &row, task_created_at, now);
		add_fill_task(&row, task);
		if (!named)
			store_insert_task(store, &row);
		else if (!store_try_insert_task(store, &row))
			continue;			/* somebody else has added it meanwhile */
		add_insert_alarm(store, spec, id, now);
		quota_add(store, spec->owner);
		return;
	}
}

PG_FUNCTION_INFO_V1(ts_add_task);
Datum
ts_add_task(PG_FUNCTION_ARGS)
{
	Datum		values[ADD_NPARAMS];
	bool		nulls[ADD_NPARAMS];
	NewTask		task = {0};
	Store	   *store;

	spec_require_writable("taskshed.add_task()");
	Assert(PG_NARGS() == ADD_NPARAMS);
	for (int i = 0; i < ADD_NPARAMS; i++)
	{
		values[i] = fcinfo->args[i].value;
		nulls[i] = fcinfo->args[i].isnull;
	}
	spec_build(&task.spec, values, nulls);
	add_check_callback(&task, NULL);

	store = store_open(RowExclusiveLock);
	home_claim(store);
	add_write(store, &task);
	store_close(store, NoLock);
	spec_warn_if_waiting();
	PG_RETURN_DATUM(task.task_id);
}

/* Says which element of add_tasks' array an error is about. */
static void
add_element_context(void *arg)
{
	errcontext("element %d of tasks", *(int *) arg);
}

/* Turns one element of add_tasks' array into a task. */
static void
add_parse_element(NewTask *task, Jsonb *object, FmgrInfo *to_record, TupleDesc desc,
				  bool replace_existing, LastAlias *last)
{
	LOCAL_FCINFO(fcinfo, 1);
	ReturnSetInfo rsinfo = {.type = T_ReturnSetInfo,.expectedDesc = desc};
	HeapTupleData tuple;
	Datum		values[ADD_NPARAMS];
	bool		nulls[ADD_NPARAMS];

	if (!JB_ROOT_IS_OBJECT(object))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("each element of tasks must be a JSON object")));
	spec_check_keys(object);

	InitFunctionCallInfoData(*fcinfo, to_record, 1, InvalidOid, NULL, (Node *) &rsinfo);
	fcinfo->args[0].value = JsonbPGetDatum(object);
	fcinfo->args[0].isnull = false;
	tuple.t_data = DatumGetHeapTupleHeader(FunctionCallInvoke(fcinfo));
	tuple.t_len = HeapTupleHeaderGetDatumLength(tuple.t_data);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	heap_deform_tuple(&tuple, desc, values, nulls);

	if (nulls[ADD_REPLACE_EXISTING])
	{
		values[ADD_REPLACE_EXISTING] = BoolGetDatum(replace_existing);
		nulls[ADD_REPLACE_EXISTING] = false;
	}
	spec_build(&task->spec, values, nulls);
	add_check_callback(task, last);
}

/* The order in which named tasks are written: by owner and name. */
static int
new_task_cmp(const void *a, const void *b)
{
	const NewTask *x = a;
	const NewTask *y = b;
	text	   *xid = x->spec.task_id;
	text	   *yid = y->spec.task_id;

	if (x->spec.owner != y->spec.owner)
		return x->spec.owner < y->spec.owner ? -1 : 1;
	return varstr_cmp(VARDATA_ANY(xid), VARSIZE_ANY_EXHDR(xid),
					  VARDATA_ANY(yid), VARSIZE_ANY_EXHDR(yid), C_COLLATION_OID);
}

PG_FUNCTION_INFO_V1(ts_add_tasks);
Datum
ts_add_tasks(PG_FUNCTION_ARGS)
{
	Jsonb	   *array;
	bool		replace_existing = PG_ARGISNULL(1) || PG_GETARG_BOOL(1);
	JsonbIterator *it;
	JsonbValue	value;
	JsonbIteratorToken token;
	NewTask    *named;
	Datum	   *ids;
	TupleDesc	desc;
	FmgrInfo	to_record;
	ErrorContextCallback context;
	int			n;
	int			nnamed = 0;
	int			element = 0;
	Store	   *store;
	LastAlias	last = {.context = CurrentMemoryContext};
	MemoryContext old = CurrentMemoryContext;
	MemoryContext parsing = AllocSetContextCreate(old, "taskshed tasks", ALLOCSET_DEFAULT_SIZES);
	MemoryContext writing = AllocSetContextCreate(old, "taskshed task", ALLOCSET_DEFAULT_SIZES);

	spec_require_writable("taskshed.add_tasks()");
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("tasks must not be null"),
				 errhint("Give a JSON array of objects.")));
	array = PG_GETARG_JSONB_P(0);
	if (!JB_ROOT_IS_ARRAY(array) || JB_ROOT_IS_SCALAR(array))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("tasks must be a JSON array of objects")));

	n = JB_ROOT_COUNT(array);
	named = MemoryContextAllocHuge(old, (n + 1) * sizeof(NewTask));
	ids = palloc((n + 1) * sizeof(Datum));
	desc = spec_tupdesc();
	fmgr_info(F_JSONB_TO_RECORD, &to_record);

	context.callback = add_element_context;
	context.arg = &element;
	context.previous = error_context_stack;
	error_context_stack = &context;
	store = store_open(RowExclusiveLock);
	home_claim(store);

	/* those without a name as they come */
	it = JsonbIteratorInit(&array->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		NewTask    *task = &named[nnamed];

		if (token != WJB_ELEM)
			continue;
		CHECK_FOR_INTERRUPTS();
		memset(task, 0, sizeof(NewTask));
		task->element = ++element;
		MemoryContextSwitchTo(parsing);
		add_parse_element(task, JsonbValueToJsonb(&value), &to_record, desc, replace_existing,
						  &last);
		if (task->spec.task_id != NULL)
			nnamed++;
		else
		{
			MemoryContextSwitchTo(writing);
			add_write(store, task);
			MemoryContextSwitchTo(old);
			ids[element - 1] = datumCopy(task->task_id, false, -1);
			MemoryContextReset(writing);
			if (nnamed == 0)
				MemoryContextReset(parsing);
		}
		MemoryContextSwitchTo(old);
	}

	/* the others in an order in which two calls cannot wait for each other */
	qsort(named, nnamed, sizeof(NewTask), new_task_cmp);
	for (int i = 1; i < nnamed; i++)
	{
		element = Max(named[i - 1].element, named[i].element);
		if (new_task_cmp(&named[i - 1], &named[i]) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("task_id \"%s\" is given twice",
							text_to_cstring(named[i].spec.task_id))));
	}
	for (int i = 0; i < nnamed; i++)
	{
		element = named[i].element;
		MemoryContextSwitchTo(writing);
		add_write(store, &named[i]);
		MemoryContextSwitchTo(old);
		ids[element - 1] = datumCopy(named[i].task_id, false, -1);
		MemoryContextReset(writing);
	}
	store_close(store, NoLock);
	error_context_stack = context.previous;
	spec_warn_if_waiting();

	PG_RETURN_ARRAYTYPE_P(construct_array(ids, n, TEXTOID, -1, false, TYPALIGN_INT));
}
