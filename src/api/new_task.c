/*-------------------------------------------------------------------------
 *
 * new_task.c
 *		A task that is added: what is asked for, and writing it.
 *
 * Everything about a task is checked before anything is written.  What a call
 * says can depend on the task that is there already: if no time zone is given,
 * that one's is kept, and times are counted, and texts read, in it.  So it is
 * looked up first; and if it turns out to be another when it is locked, what was
 * asked for is read once more.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "api/api.h"

/*
 * Make a new task_id: 32 hex digits that begin with the time, so that new ids
 * are neighbours in the index, and go on with 80 random bits.
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

/* Return what a callback's name stands for if it is an alias, else NULL. */
static char *
add_find_alias(const TaskSpec *spec, LastAlias *last)
{
	char	   *target;

	if (last->callback != NULL && last->owner == spec->owner &&
		strcmp(last->callback, spec->callback) == 0)
		return last->target;
	target = alias_find(spec->owner, spec->callback);
	if (last->callback != NULL)
		pfree(last->callback);
	if (last->target != NULL)
		pfree(last->target);
	last->owner = spec->owner;
	last->callback = MemoryContextStrdup(last->context, spec->callback);
	last->target = target == NULL ? NULL : MemoryContextStrdup(last->context, target);
	return target;
}

/*
 * Find out whether the callback can be called like this, and the name under
 * which it is stored: an alias as it is, for it may be re-pointed.
 */
static void
add_check_callback(NewTask *task, LastAlias *last)
{
	const TaskSpec *spec = &task->spec;
	char	   *target = add_find_alias(spec, last);

	task->is_alias = (target != NULL);
	if (task->is_alias)
		task->callback = spec->callback;
	if (spec->validate)
	{
		char	   *qualified = spec_check_call(spec, task->is_alias ? target : spec->callback);

		if (!task->is_alias)
			task->callback = qualified;
	}
	else if (!task->is_alias)
		task->callback = resolve_qualify(spec->callback);
}

/*
 * Return the time zone that a task will have: the one that is given, else that
 * of the task that is there already, if there is one, else the session's.  One
 * that this server does not know is not kept: such a task cannot go on.
 */
static pg_tz *
add_zone(const NewTask *task, const TaskRow *old)
{
	pg_tz	   *zone = NULL;

	if (!task->nulls[ADD_TIMEZONE])
		return zone_by_name(TextDatumGetCString(task->values[ADD_TIMEZONE]));
	if (old != NULL)
		zone = pg_tzset(TextDatumGetCString(ROW_DATUM(old, task_timezone)));
	return zone != NULL ? zone : session_timezone;
}

/* Check all that is asked for, as it is with that zone; into the current memory context. */
static void
add_check(Adding *adding, NewTask *task, Oid owner, pg_tz *zone)
{
	text	   *task_id = task->spec.task_id;
	bool		recurring;
	bool		lasting;

	if (task->object != NULL && zone != task->read_in && spec_has_times(task->nulls))
	{
		spec_read(&adding->reader, task->object, zone, task->values, task->nulls);
		task->read_in = zone;
	}
	if (!task->nulls[ADD_AFTER_STATUS] && task->nulls[ADD_AFTER] && task->nulls[ADD_AFTER_GROUP])
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("after_status can only be given with after or after_group"),
				 errhint("It says which ends of those tasks are waited for.")));
	recurring = task->spec.recurring;
	lasting = task->spec.lasting;
	spec_build(&task->spec, task->values, task->nulls, owner, zone, adding->now);
	if (task->resolved)
	{
		task->spec.recurring = recurring;
		task->spec.lasting = lasting;
	}
	if (!task->named)
		task->spec.task_id = task_id;
	if (task->nulls[ADD_REPLACE_EXISTING])
		task->spec.replace_existing = adding->replace_existing;
	task->first_run = spec_first_run(&task->spec, adding->now);
	check_login(owner);
	add_check_callback(task, &adding->last);
	if (!task->nulls[ADD_ON_FAILURE])
		task->values[ADD_ON_FAILURE] =
			CStringGetTextDatum(spec_check_hook(&task->spec,
												TextDatumGetCString(task->values[ADD_ON_FAILURE])));
}

/* Refuse a name that is given to tasks which tell of the failure of others: 22023. */
static void
add_check_task_id(const text *task_id)
{
	int			length = strlen(HOOK_PREFIX);

	if (VARSIZE_ANY_EXHDR(task_id) >= length &&
		memcmp(VARDATA_ANY(task_id), HOOK_PREFIX, length) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("task_id must not begin with \"%s\"", HOOK_PREFIX),
				 errhint("Tasks that are scheduled because another has failed are called so.")));
}

/*
 * Find out what is asked for.  A task that has no name gets one, and if it is
 * new, its id: tasks of the same time run in the order of these.
 */
void
add_prepare(Adding *adding, NewTask *task)
{
	Oid			owner = check_owner(task->nulls[ADD_OWNER] ? NULL :
									NameStr(*DatumGetName(task->values[ADD_OWNER])));
	pg_tz	   *zone;

	task->named = !task->nulls[ADD_TASK_ID];
	if (task->named)
	{
		MemoryContext context = MemoryContextSwitchTo(adding->scratch);
		TaskRow		old;

		add_check_task_id(DatumGetTextPP(task->values[ADD_TASK_ID]));
		task->seen = store_find_task(adding->store, owner, task->values[ADD_TASK_ID], &old);
		zone = add_zone(task, task->seen ? &old : NULL);
		MemoryContextSwitchTo(context);
	}
	else
	{
		task->spec.task_id = add_generate_id();
		zone = add_zone(task, NULL);
	}
	add_check(adding, task, owner, zone);
	task->task_id = PointerGetDatum(task->spec.task_id);
	if (!task->seen)
		task->id = store_new_id();
}

/*
 * Check again if what is asked for is another beside the task that is there
 * now, or none.
 */
static void
add_check_again(Adding *adding, NewTask *task, const TaskRow *old)
{
	pg_tz	   *zone = task->nulls[ADD_TIMEZONE] ? add_zone(task, old) : task->spec.calendar.zone;

	if (zone != task->spec.calendar.zone)
		add_check(adding, task, task->spec.owner, zone);
}

/* Fill in all that a call of add_task determines of a task's row. */
static void
add_fill_task(TaskRow *row, const NewTask *task)
{
	const TaskSpec *spec = &task->spec;
	Name		owner_name = palloc(sizeof(NameData));

	spec_fill_task(row, spec);
	namestrcpy(owner_name, GetUserNameFromId(spec->owner, false));
	ROW_SET(ObjectId, row, task_owner, spec->owner);
	ROW_SET(Name, row, task_owner_name, owner_name);
	ROW_SET(Pointer, row, task_task_id, spec->task_id);
	ROW_SET(Pointer, row, task_callback, cstring_to_text(task->callback));
	ROW_SET(Bool, row, task_is_alias, task->is_alias);
}

/* Prepare for the first writing of a call, which is about to happen. */
static void
add_claim(Adding *adding)
{
	if (!adding->claimed)
		copies_claim(adding->store);
	adding->claimed = true;
}

/* Return whether a task can be late that is due at the call, since nobody has said when. */
static bool
add_may_be_late(const TaskSpec *spec)
{
	return !spec->has_run_at &&
		(!spec->nulls[ADD_START_WITHIN] || spec->catch_up == CATCH_UP_SKIP);
}

/* Write the alarm of a task that has none. */
static void
add_insert_alarm(Store *store, const NewTask *task, int64 id, TimestampTz now)
{
	const TaskSpec *spec = &task->spec;
	AlarmRow	row;
	TimestampTz run_at = task->first_run;

	alarm_begin(&row, id, spec->owner, run_at, now);
	if (spec->paused)
		ROW_SET(TimestampTz, &row, alarm_paused_at, now);
	if (task->nparents > 0 || task->in_vain || spec->lasting)
		ROW_SET(TimestampTz, &row, alarm_waiting_since, now);
	else if (add_may_be_late(spec))
		late_from_commit(&row);
	if (task->nparents > 0)
		ROW_SET(Bool, &row, alarm_follows, true);
	if (task->followed)
		ROW_SET(Bool, &row, alarm_followed, true);
	store_insert_alarm(store, &row);
	if (alarm_is_queued(&row))
		notes_add(run_at, id, spec->owner);
}

/*
 * Return whether a task that is replaced is to begin when it does already.  A
 * recurring task is given the time at which it began, an interval's grid that
 * at which that does.
 */
static bool
add_same_start(const TaskSpec *spec, const AlarmRow *alarm)
{
	if (!spec->has_run_at)
		return true;
	if (spec->recurring && spec->run_at == ROW_GET(TimestampTz, alarm, alarm_anchor))
		return true;
	return spec->every == NULL && spec->run_at == ROW_GET(TimestampTz, alarm, alarm_scheduled_at);
}

/*
 * Return the next time of a task that is replaced, as far as that matters to
 * whether its times are over.  A time that has passed is waited for only as
 * long as nobody changes until when the task may run.
 */
static TimestampTz
add_next_time(const NewTask *task, const AlarmRow *alarm, bool same_times, bool same_until,
			  TimestampTz now)
{
	TimestampTz scheduled_at = ROW_GET(TimestampTz, alarm, alarm_scheduled_at);

	if (!same_times)
		return Max(task->first_run, now);
	if (same_until && ROW_ISNULL(alarm, alarm_failed_at))
		return scheduled_at;
	return Max(scheduled_at, now);
}

/*
 * Have a task that keeps its times begin anew, with all its attempts: one that
 * has failed, or waits to be tried again, at once.  Return whether it is one of
 * these.
 */
static bool
add_begin_anew(const TaskSpec *spec, AlarmRow *alarm, TimestampTz now)
{
	bool		tried = !ROW_ISNULL(alarm, alarm_failed_at) || alarm_has_begun(alarm);

	/* as if there had been no run beside the schedule */
	if (!ROW_ISNULL(alarm, alarm_resume_at))
		ROW_SET(TimestampTz, alarm, alarm_run_at, ROW_GET(TimestampTz, alarm, alarm_resume_at));
	ROW_SET_NULL(alarm, alarm_resume_at);
	if (!tried)
		return false;
	if (!spec->recurring && !spec->has_run_at)
		ROW_SET(TimestampTz, alarm, alarm_scheduled_at, now);
	ROW_SET(TimestampTz, alarm, alarm_run_at, ROW_GET(TimestampTz, alarm, alarm_scheduled_at));
	return true;
}

/*
 * Replace a task.  Its alarm is locked.  What the caller has left out is kept
 * where the documentation says so; a call that changes nothing of a recurring
 * task writes nothing, and one that changes nothing of a one-off task leaves it
 * its attempts.  But if again, the task has to run once more although it is
 * running.
 */
static void
add_replace(Adding *adding, NewTask *task, TaskRow *old, AlarmRow *alarm, bool again)
{
	Store	   *store = adding->store;
	TimestampTz now = adding->now;
	const TaskSpec *spec = &task->spec;
	TupleDesc	desc = RelationGetDescr(store->task);
	int64		id = ROW_GET(Int64, old, task_id);
	TaskRow		new = *old;
	TimestampTz was_due_at = change_due_at(alarm);
	bool		was_paused = !ROW_ISNULL(alarm, alarm_paused_at);
	bool		paused = spec->has_paused ? spec->paused : was_paused;
	bool		same_task;
	bool		same_times;
	bool		same;
	bool		was_recurring = task_is_recurring(old);
	bool		tried = false;
	bool		running;
	TimestampTz next;

	add_fill_task(&new, task);
	same_task = spec_same_task(&new, old, desc);
	same_times = add_same_start(spec, alarm) && spec_same_times(spec, &new, old, desc) &&
		spec->lasting == task_is_lasting(old);
	same = same_times && spec_same_work(&new, old, desc) && ROW_ISNULL(alarm, alarm_failed_at);

	next = add_next_time(task, alarm, same_times, spec_same_until(&new, old, desc), now);
	if (spec_is_over(spec, next, spec->recurring && was_recurring ?
					 ROW_GET(Int64, alarm, alarm_run_count) : 0))
	{
		spec_tell_over(spec, next, true);
		(void) change_remove(store, alarm, 0);
		return;
	}
	task->written = WRITTEN_AGAIN;
	task->was_lasting = task_is_lasting(old);
	task->other_status = !spec_same_status(&new, old, desc);
	task->rejoin = (task->nparents > 0 || task->in_vain || ROW_IS_TRUE(alarm, alarm_follows) ||
					spec->lasting || task->was_lasting);
	if (same && same_task && !again && spec->recurring && paused == was_paused)
		return;

	add_claim(adding);
	if (!same_task)
		store_update_task(store, &new);

	if (!same_times)
	{
		ROW_SET(TimestampTz, alarm, alarm_run_at, task->first_run);
		ROW_SET(TimestampTz, alarm, alarm_scheduled_at, task->first_run);
		ROW_SET(TimestampTz, alarm, alarm_anchor, task->first_run);
		ROW_SET_NULL(alarm, alarm_resume_at);
	}
	else if (!same && !again)
		tried = add_begin_anew(spec, alarm, now);
	ROW_SET_NULL(alarm, alarm_failed_at);

	running = slot_is_running(id);
	if (again)
	{
		/* the run in progress may yet turn out to be interrupted */
		alarm_raise_revision(alarm);
		ROW_SET(Int32, alarm, alarm_attempt, 0);
		ROW_SET_NULL(alarm, alarm_begun_at);
	}
	else if (!same)
	{
		/* a procedure that has begun for this time is told so */
		Datum		restarts = same_times && !ROW_ISNULL(alarm, alarm_restarts) ?
		ROW_DATUM(alarm, alarm_restarts) : (Datum) 0;

		alarm_raise_revision(alarm);
		alarm_count_anew(alarm);
		if (restarts != 0)
			ROW_SET(Int32, alarm, alarm_restarts, DatumGetInt32(restarts));
	}
	else if (!spec->recurring)
		ROW_SET(TimestampTz, alarm, alarm_asked_at, GetCurrentTimestamp());
	if (again || (!same && (tried || running)) || (!same_times && add_may_be_late(spec)))
		late_from_commit(alarm);

	/* a one-off task is another piece of work; the run in progress is not its */
	if ((again || !same) && !(spec->recurring && was_recurring))
	{
		ROW_SET(Int64, alarm, alarm_run_count, running ? -1 : 0);
		ROW_SET(Int32, alarm, alarm_failures_in_row, 0);
	}
	if (!paused)
		ROW_SET_NULL(alarm, alarm_paused_at);
	else if (!was_paused)
		ROW_SET(TimestampTz, alarm, alarm_paused_at, now);
	store_update_alarm(store, alarm);
	change_note(alarm, was_due_at);
	if (!same_times && !task->rejoin)
		ending_moved(store, alarm);
}

/*
 * Leave an existing task as it is, unless it has failed: replace_existing =>
 * false.  But what the caller wants done must be done after its commit: a run
 * in progress may have begun too early to see what the caller did, and so may
 * one that begins before the commit.  The former gets the new definition; both
 * are made to run again by raising the revision.
 */
static void
add_keep(Adding *adding, NewTask *task, TaskRow *old, AlarmRow *alarm)
{
	int64		id = ROW_GET(Int64, old, task_id);

	bool		running = slot_is_running(id);

	if (running || !ROW_ISNULL(alarm, alarm_failed_at))
	{
		add_replace(adding, task, old, alarm, running);
		return;
	}
	task->written = WRITTEN_KEPT;
	add_claim(adding);
	alarm_raise_revision(alarm);
	if (!alarm_has_begun(alarm))
		late_from_commit(alarm);
	store_update_alarm(adding->store, alarm);
	if (alarm_is_queued(alarm))
		notes_add(ROW_GET(TimestampTz, alarm, alarm_run_at), id, task->spec.owner);
}

/*
 * Return whether a task is not failed, and paused, waiting for others or not due, so that
 * add_keep has nothing to do.
 */
static bool
add_leaves_alone(Store *store, int64 id)
{
	AlarmRow	alarm;

	return store_get_alarm(store, id, &alarm) &&
		ROW_ISNULL(&alarm, alarm_failed_at) &&
		(!ROW_ISNULL(&alarm, alarm_paused_at) || !ROW_ISNULL(&alarm, alarm_waiting_since) ||
		 ROW_GET(TimestampTz, &alarm, alarm_run_at) > GetCurrentTimestamp()) &&
		!slot_is_running(id);
}

/*
 * Return whether the times of a task that is new are over, and say then that it
 * is not added.
 */
static bool
add_is_over(const Adding *adding, const NewTask *task)
{
	TimestampTz next = Max(task->first_run, adding->now);

	if (!spec_is_over(&task->spec, next, 0))
		return false;
	spec_tell_over(&task->spec, next, false);
	return true;
}

/*
 * Write a task that is new, unless its times are over.  Return false if
 * somebody else has added it meanwhile.  Its owner must be allowed one more.
 */
static bool
add_insert(Adding *adding, NewTask *task)
{
	Store	   *store = adding->store;
	TaskRow		row;

	add_check_again(adding, task, NULL);
	if (add_is_over(adding, task))
		return true;
	add_claim(adding);
	if (task->id == 0)
		task->id = store_new_id();
	memset(row.nulls, true, sizeof(row.nulls));
	memset(row.values, 0, sizeof(row.values));
	ROW_SET(Int64, &row, task_id, task->id);
	ROW_SET(TimestampTz, &row, task_created_at, adding->now);
	add_fill_task(&row, task);
	if (!task->named)
		store_insert_task(store, &row);
	else if (!store_try_insert_task(store, &row, true))
		return false;
	add_insert_alarm(store, task, task->id, adding->now);
	max_tasks_add(store, task->spec.owner);
	task->written = WRITTEN_NEW;
	task->row_id = task->id;
	return true;
}

/* Write one task. */
void
add_write(Adding *adding, NewTask *task)
{
	Store	   *store = adding->store;
	const TaskSpec *spec = &task->spec;

	task->written = WRITTEN_NOT;
	task->rejoin = false;
	task->was_lasting = task->other_status = false;
	for (;;)
	{
		TaskRow		row;
		AlarmRow	alarm;
		int64		id;

		CHECK_FOR_INTERRUPTS();
		if (!task->seen || !store_find_task(store, spec->owner, task->task_id, &row))
		{
			if (add_insert(adding, task))
				return;
			task->seen = true;
			continue;
		}
		task->row_id = id = ROW_GET(Int64, &row, task_id);
		if (!spec->replace_existing && add_leaves_alone(store, id))
		{
			if (store_await_removal(store, id))
				continue;
			task->written = WRITTEN_KEPT;
			add_claim(adding);
			return;
		}
		if (store_lock_alarm(store, id, &alarm, LockWaitBlock) == TM_Ok)
		{
			/* who has waited for the lock finds another row */
			if (!store_get_task(store, id, &row))
				elog(ERROR, "task " INT64_FORMAT " has an alarm but no row", id);
			if (ROW_GET(ObjectId, &row, task_owner) != spec->owner)
				continue;		/* it has been given to another */
			add_check_again(adding, task, &row);
			if (spec->replace_existing)
				add_replace(adding, task, &row, &alarm, false);
			else
				add_keep(adding, task, &row, &alarm);
			return;
		}
		if (!store_get_task(store, id, &row))
			continue;			/* it has been removed meanwhile */

		/* somebody has deleted the alarm by hand */
		add_check_again(adding, task, &row);
		if (add_is_over(adding, task))
		{
			ending_remove_remains(store, &row);
			return;
		}
		add_claim(adding);
		add_fill_task(&row, task);
		store_update_task(store, &row);
		add_insert_alarm(store, task, id, adding->now);
		task->written = WRITTEN_AGAIN;
		task->rejoin = true;
		return;
	}
}
