/*-------------------------------------------------------------------------
 *
 * api_change.c
 *		Pausing, resuming, removing, retrying and running tasks.
 *
 * None of these waits for a callback that is running: a run locks its task's
 * alarm only at its end.  Changes of what a run would write, its time and its
 * end, raise the alarm's revision or remove it, and the run leaves these alone.
 *
 * Bulk calls take the alarms' locks in the order of the task_ids.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_collation_d.h"
#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "api/api.h"

/*
 * Note that a task which was in the queue, or not, is in it no more.  (How many
 * have failed may have changed, too.)
 */
static void
change_note_gone(const AlarmRow *alarm, bool was_queued)
{
	notes_add_gone(was_queued ? ROW_GET(TimestampTz, alarm, alarm_run_at) : DT_NOEND,
				   ROW_GET(Int64, alarm, alarm_id), ROW_GET(ObjectId, alarm, alarm_owner));
}

/* Return when a task is due as it stands: DT_NOEND if it is not in the queue. */
TimestampTz
change_due_at(const AlarmRow *alarm)
{
	return alarm_is_queued(alarm) ? ROW_GET(TimestampTz, alarm, alarm_run_at) : DT_NOEND;
}

/* Note that a task is due at another time than before, or in or out of the queue. */
void
change_note(const AlarmRow *alarm, TimestampTz was_due_at)
{
	TimestampTz due_at = change_due_at(alarm);
	int64		id = ROW_GET(Int64, alarm, alarm_id);
	Oid			owner = ROW_GET(ObjectId, alarm, alarm_owner);

	if (was_due_at < due_at)
		notes_add_gone(was_due_at, id, owner);
	if (due_at != DT_NOEND)
		notes_add(due_at, id, owner);
}

static bool
change_pause(Store *store, AlarmRow *alarm, TimestampTz now)
{
	bool		was_queued = alarm_is_queued(alarm);

	if (!ROW_ISNULL(alarm, alarm_paused_at))
		return false;
	ROW_SET(TimestampTz, alarm, alarm_paused_at, now);
	store_update_alarm(store, alarm);
	change_note_gone(alarm, was_queued && !alarm_is_queued(alarm));
	return true;
}

static bool
change_resume(Store *store, AlarmRow *alarm, TimestampTz now)
{
	if (ROW_ISNULL(alarm, alarm_paused_at))
		return false;
	ROW_SET_NULL(alarm, alarm_paused_at);
	store_update_alarm(store, alarm);
	if (alarm_is_queued(alarm))
		notes_add(ROW_GET(TimestampTz, alarm, alarm_run_at),
				  ROW_GET(Int64, alarm, alarm_id), ROW_GET(ObjectId, alarm, alarm_owner));
	return true;
}

/*
 * Remove a task; arg points to a list of those for ending_settle_removed, or is 0: then
 * what runs after it is told at once.
 */
bool
change_remove(Store *store, AlarmRow *alarm, int64 arg)
{
	List	   *only = NIL;
	List	  **removed = arg != 0 ? (List **) (intptr_t) arg : &only;

	ending_remove(store, alarm, removed);
	change_note_gone(alarm, alarm_is_queued(alarm));
	if (arg == 0)
		ending_settle_removed(store, only);
	return true;
}

/*
 * Have a task run next at a time, whatever it was waiting for before.  If it has
 * been tried at its old one it is not late at this one before the commit.  The
 * caller writes the alarm.
 */
void
change_time(AlarmRow *alarm, TimestampTz run_at)
{
	bool		tried = !ROW_ISNULL(alarm, alarm_failed_at) || alarm_has_begun(alarm) ||
	slot_is_running(ROW_GET(Int64, alarm, alarm_id));

	ROW_SET(TimestampTz, alarm, alarm_run_at, run_at);
	alarm_raise_revision(alarm);
	alarm_count_anew(alarm);
	if (tried)
		late_from_commit(alarm);
	ROW_SET_NULL(alarm, alarm_failed_at);
	ROW_SET_NULL(alarm, alarm_resume_at);
}

/* The same, written and noted. */
bool
change_schedule(Store *store, AlarmRow *alarm, TimestampTz run_at)
{
	TimestampTz was_due_at = change_due_at(alarm);

	change_time(alarm, run_at);
	store_update_alarm(store, alarm);
	change_note(alarm, was_due_at);
	ending_moved(store, alarm);
	return true;
}

/* Send a failed task round again, now, with its attempts counted anew. */
static bool
change_retry(Store *store, AlarmRow *alarm, TimestampTz now)
{
	if (ROW_ISNULL(alarm, alarm_failed_at))
		return false;
	return change_schedule(store, alarm, now);
}

/* Ask for one run beside the schedule. */
static bool
change_run(Store *store, AlarmRow *alarm, TimestampTz now)
{
	once_more_beside(store, alarm);
	return true;
}

/* Stop the run in progress, if there is one, at the commit. */
static bool
change_cancel(Store *store, AlarmRow *alarm, TimestampTz now)
{
	return cancel_run(ROW_GET(Int64, alarm, alarm_id));
}

/*
 * Get a task's alarm, locked as far as the change needs it.  Return false if
 * there is none, or if the task was given to another owner while we waited.
 */
static bool
change_get_alarm(Store *store, Oid owner, int64 id, TaskChange change, AlarmRow *alarm)
{
	bool		there;

	CHECK_FOR_INTERRUPTS();
	/* stopping a run changes no row: it waits for nobody */
	if (change == change_cancel)
		there = store_get_alarm(store, id, alarm);
	else
		there = (store_lock_alarm(store, id, alarm, LockWaitBlock) == TM_Ok);
	return there && ROW_GET(ObjectId, alarm, alarm_owner) == owner;
}

static bool
change_by_id(Store *store, Oid owner, int64 id, TaskChange change, int64 arg)
{
	AlarmRow	alarm;

	return change_get_alarm(store, owner, id, change, &alarm) && change(store, &alarm, arg);
}

/* Do the same for a task of a group, unless it has left that while we waited. */
static bool
change_in_group(Store *store, Oid owner, int64 id, const text *group, TaskChange change, int64 arg)
{
	AlarmRow	alarm;
	TaskRow		task;
	text	   *current;

	if (!change_get_alarm(store, owner, id, change, &alarm) ||
		!store_get_task(store, id, &task) || ROW_ISNULL(&task, task_group_id))
		return false;
	current = DatumGetTextPP(ROW_DATUM(&task, task_group_id));
	return VARSIZE_ANY_EXHDR(current) == VARSIZE_ANY_EXHDR(group) &&
		memcmp(VARDATA_ANY(current), VARDATA_ANY(group), VARSIZE_ANY_EXHDR(group)) == 0 &&
		change(store, &alarm, arg);
}

/* Change a task that is known by its name; return whether it was there and changed. */
bool
change_by_name(Store *store, Oid owner, Datum task_id, TaskChange change, int64 arg)
{
	TaskRow		task;
	AlarmRow	alarm;
	int64		id = 0;

	/* a task that was removed while we waited may have been added again */
	while (store_find_task(store, owner, task_id, &task) &&
		   ROW_GET(Int64, &task, task_id) != id)
	{
		id = ROW_GET(Int64, &task, task_id);
		if (change_get_alarm(store, owner, id, change, &alarm))
			return change(store, &alarm, arg);
	}
	return false;
}

/* Compare names in the order in which tasks are locked. */
int
change_name_cmp(const void *a, const void *b)
{
	text	   *x = DatumGetTextPP(*(const Datum *) a);
	text	   *y = DatumGetTextPP(*(const Datum *) b);

	return varstr_cmp(VARDATA_ANY(x), VARSIZE_ANY_EXHDR(x),
					  VARDATA_ANY(y), VARSIZE_ANY_EXHDR(y), C_COLLATION_OID);
}

/* Get the elements of a text array, in order, each once and without NULLs. */
static int
change_sorted_ids(ArrayType *array, Datum **ids)
{
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	int			kept = 0;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &n);
	*ids = palloc((n + 1) * sizeof(Datum));
	for (int i = 0; i < n; i++)
	{
		if (!nulls[i])
			(*ids)[kept++] = PointerGetDatum(DatumGetTextPP(elements[i]));
	}
	qsort(*ids, kept, sizeof(Datum), change_name_cmp);

	n = kept;
	kept = 0;
	for (int i = 0; i < n; i++)
	{
		if (kept == 0 || change_name_cmp(&(*ids)[kept - 1], &(*ids)[i]) != 0)
			(*ids)[kept++] = (*ids)[i];
	}
	return kept;
}

/* Find the tasks of those names that there are, as an array of *n. */
static int64 *
change_find_named(Store *store, Oid owner, ArrayType *task_ids, int *n)
{
	Datum	   *names;
	int			nnames = change_sorted_ids(task_ids, &names);
	int64	   *ids = palloc((nnames + 1) * sizeof(int64));

	*n = 0;
	for (int i = 0; i < nnames; i++)
	{
		TaskRow		task;

		if (store_find_task(store, owner, names[i], &task))
			ids[(*n)++] = ROW_GET(Int64, &task, task_id);
	}
	return ids;
}

/*
 * Change the tasks of an owner that task_ids or group_id selects, or all of
 * them if both are NULL.  Return how many were changed.
 */
int
change_tasks(Store *store, Oid owner, ArrayType *task_ids, text *group_id,
			 TaskChange change, int64 arg)
{
	int			changed = 0;
	int			n;

	if (task_ids != NULL)
	{
		Datum	   *names;

		n = change_sorted_ids(task_ids, &names);
		for (int i = 0; i < n; i++)
			changed += change_by_name(store, owner, names[i], change, arg);
	}
	else if (group_id != NULL)
	{
		int64	   *ids = store_find_group(store, owner, PointerGetDatum(group_id), &n);

		for (int i = 0; i < n; i++)
			changed += change_in_group(store, owner, ids[i], group_id, change, arg);
	}
	else
	{
		int64	   *ids = store_find_owned(store, owner, &n);

		for (int i = 0; i < n; i++)
			changed += change_by_id(store, owner, ids[i], change, arg);
	}
	return changed;
}

/*
 * Remove the tasks that change_tasks would change.  What is to run after some of them, and is
 * not among them, is locked with them, in one order, and hears of it when all are gone.
 */
int
change_remove_tasks(Store *store, Oid owner, ArrayType *task_ids, text *group_id)
{
	List	   *removed = NIL;
	int			n;

	if (edges_exist(store) && (task_ids != NULL || group_id != NULL))
	{
		int64	   *ids = task_ids == NULL ?
			store_find_group(store, owner, PointerGetDatum(group_id), &n) :
			change_find_named(store, owner, task_ids, &n);

		lock_with_followers(store, ids, n);
	}
	n = change_tasks(store, owner, task_ids, group_id, change_remove, (int64) (intptr_t) &removed);
	ending_settle_removed(store, removed);
	return n;
}

/* Answer the bulk calls: task_ids text[], group_id text, owner name. */
static Datum
change_selected(FunctionCallInfo fcinfo, const char *function, TaskChange change)
{
	TimestampTz now = GetCurrentTimestamp();
	Oid			owner;
	Store	   *store;
	ArrayType  *task_ids;
	text	   *group_id;
	int			changed;

	check_writable(function);
	check_selector(PG_ARGISNULL(0), PG_ARGISNULL(1),
				   change == change_remove ? "taskshed.remove_all_tasks()" : NULL);
	owner = check_owner(PG_ARGISNULL(2) ? NULL : NameStr(*PG_GETARG_NAME(2)));

	store = store_open(RowExclusiveLock);
	task_ids = PG_ARGISNULL(0) ? NULL : PG_GETARG_ARRAYTYPE_P(0);
	group_id = PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1);
	changed = change == change_remove ? change_remove_tasks(store, owner, task_ids, group_id) :
		change_tasks(store, owner, task_ids, group_id, change, now);
	store_close(store, NoLock);
	PG_RETURN_INT32(changed);
}

/* Answer the calls for one task: task_id text, owner name. */
static Datum
change_one(FunctionCallInfo fcinfo, const char *function, TaskChange change)
{
	Oid			owner;
	Store	   *store;
	bool		changed;

	check_writable(function);
	owner = check_owner(PG_ARGISNULL(1) ? NULL : NameStr(*PG_GETARG_NAME(1)));
	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(false);

	store = store_open(RowExclusiveLock);
	changed = change_by_name(store, owner, PointerGetDatum(PG_GETARG_TEXT_PP(0)), change,
							 GetCurrentTimestamp());
	store_close(store, NoLock);
	PG_RETURN_BOOL(changed);
}

PG_FUNCTION_INFO_V1(ts_pause_tasks);
Datum
ts_pause_tasks(PG_FUNCTION_ARGS)
{
	return change_selected(fcinfo, "taskshed.pause_tasks()", change_pause);
}

PG_FUNCTION_INFO_V1(ts_resume_tasks);
Datum
ts_resume_tasks(PG_FUNCTION_ARGS)
{
	return change_selected(fcinfo, "taskshed.resume_tasks()", change_resume);
}

PG_FUNCTION_INFO_V1(ts_remove_tasks);
Datum
ts_remove_tasks(PG_FUNCTION_ARGS)
{
	return change_selected(fcinfo, "taskshed.remove_tasks()", change_remove);
}

PG_FUNCTION_INFO_V1(ts_pause_task);
Datum
ts_pause_task(PG_FUNCTION_ARGS)
{
	return change_one(fcinfo, "taskshed.pause_task()", change_pause);
}

PG_FUNCTION_INFO_V1(ts_resume_task);
Datum
ts_resume_task(PG_FUNCTION_ARGS)
{
	return change_one(fcinfo, "taskshed.resume_task()", change_resume);
}

PG_FUNCTION_INFO_V1(ts_remove_task);
Datum
ts_remove_task(PG_FUNCTION_ARGS)
{
	Oid			owner;
	Store	   *store;
	ArrayType  *task_ids;
	bool		removed;

	check_writable("taskshed.remove_task()");
	owner = check_owner(PG_ARGISNULL(1) ? NULL : NameStr(*PG_GETARG_NAME(1)));
	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(false);

	store = store_open(RowExclusiveLock);
	task_ids = construct_array((Datum[]) {PG_GETARG_DATUM(0)}, 1, TEXTOID, -1, false, TYPALIGN_INT);
	removed = change_remove_tasks(store, owner, task_ids, NULL) > 0;
	store_close(store, NoLock);
	PG_RETURN_BOOL(removed);
}

PG_FUNCTION_INFO_V1(ts_retry_tasks);
Datum
ts_retry_tasks(PG_FUNCTION_ARGS)
{
	return change_selected(fcinfo, "taskshed.retry_tasks()", change_retry);
}

PG_FUNCTION_INFO_V1(ts_retry_task);
Datum
ts_retry_task(PG_FUNCTION_ARGS)
{
	return change_one(fcinfo, "taskshed.retry_task()", change_retry);
}

PG_FUNCTION_INFO_V1(ts_run_tasks);
Datum
ts_run_tasks(PG_FUNCTION_ARGS)
{
	return change_selected(fcinfo, "taskshed.run_tasks()", change_run);
}

PG_FUNCTION_INFO_V1(ts_run_task);
Datum
ts_run_task(PG_FUNCTION_ARGS)
{
	return change_one(fcinfo, "taskshed.run_task()", change_run);
}

PG_FUNCTION_INFO_V1(ts_cancel_tasks);
Datum
ts_cancel_tasks(PG_FUNCTION_ARGS)
{
	return change_selected(fcinfo, "taskshed.cancel_tasks()", change_cancel);
}

PG_FUNCTION_INFO_V1(ts_cancel_task);
Datum
ts_cancel_task(PG_FUNCTION_ARGS)
{
	return change_one(fcinfo, "taskshed.cancel_task()", change_cancel);
}

PG_FUNCTION_INFO_V1(ts_remove_all_tasks);
Datum
ts_remove_all_tasks(PG_FUNCTION_ARGS)
{
	Oid			owner;
	Store	   *store;
	int			removed;

	check_writable("taskshed.remove_all_tasks()");
	owner = check_owner(PG_ARGISNULL(0) ? NULL : NameStr(*PG_GETARG_NAME(0)));

	store = store_open(RowExclusiveLock);
	removed = change_remove_tasks(store, owner, NULL, NULL);
	store_close(store, NoLock);
	PG_RETURN_INT32(removed);
}
