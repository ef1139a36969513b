/*-------------------------------------------------------------------------
 *
 * api_preview.c
 *		next_runs and describe: when something will run, before it does.
 *
 * The times come from the same code as those of the scheduler and of the ends
 * of runs.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "api/api.h"

#define DEFAULT_TIMES	5
#define MAX_TIMES		10000

/* Parameters of next_runs, in their order. */
enum
{
	NEXT_SCHEDULE,
	NEXT_TIMEZONE,
	NEXT_AFTER,
	NEXT_N,
	NEXT_EVERY,
	NEXT_RUN_AT,
	NEXT_TASK_ID,
	NEXT_OWNER,
	NEXT_SPREAD,
	NEXT_EXCEPT_ON
};

/* Where the times go, and which are wanted. */
typedef struct Preview
{
	ReturnSetInfo *rsinfo;
	TimestampTz after;			/* none up to this one */
	int			n;				/* so many, still */
} Preview;

/* Add a time if it is wanted; return whether any more are. */
static bool
preview_add(Preview *preview, TimestampTz time)
{
	Datum		value = TimestampTzGetDatum(time);
	bool		isnull = false;

	if (time > preview->after && preview->n > 0)
	{
		tuplestore_putvalues(preview->rsinfo->setResult, preview->rsinfo->setDesc,
							 &value, &isnull);
		preview->n--;
	}
	return preview->n > 0;
}

/* Add the times of an interval or a schedule. */
static void
preview_calendar(Preview *preview, const Calendar *calendar)
{
	TimestampTz time = preview->after;

	while (preview->n > 0 && calendar_next(calendar, time, &time))
	{
		CHECK_FOR_INTERRUPTS();
		preview_add(preview, time);
	}
}

/*
 * Add the times of a task, as if each run took no time and succeeded.  They
 * begin with run_at, even if that has passed; a pause is taken for over.  A
 * failed task has none.  The current user may act for the owner.  Errors: 42501
 * that one has no such task.
 */
static void
preview_task(Preview *preview, Oid owner, text *task_id, TimestampTz now)
{
	Store	   *store = store_open(AccessShareLock);
	TaskRow		task;
	AlarmRow	alarm;
	RunStart	start;
	int64		runs;
	bool		again;
	bool		missed;
	TimestampTz next;

	if (!store_find_task(store, owner, PointerGetDatum(task_id), &task))
	{
		char	   *name = GetUserNameFromId(owner, true);

		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" has no task \"%s\"",
						name != NULL ? name : psprintf("%u", owner), text_to_cstring(task_id)),
				 owner == GetUserId() ? errhint("For a task of another role give owner.") : 0));
	}
	again = store_get_alarm(store, ROW_GET(Int64, &task, task_id), &alarm);
	store_close(store, AccessShareLock);
	if (!again)
		return;

	/* a run beside the schedule comes before the others, and changes none */
	if (!ROW_ISNULL(&alarm, alarm_resume_at))
	{
		preview_add(preview, ROW_GET(TimestampTz, &alarm, alarm_run_at));
		ROW_SET(TimestampTz, &alarm, alarm_run_at, ROW_GET(TimestampTz, &alarm, alarm_resume_at));
		ROW_SET_NULL(&alarm, alarm_resume_at);
	}
	if (!ROW_ISNULL(&alarm, alarm_failed_at) || !ROW_ISNULL(&alarm, alarm_waiting_since))
		return;

	run_start_read(&start, &task, &alarm, now);
	next = ROW_GET(TimestampTz, &alarm, alarm_run_at);
	start.started_at = Max(now, next);
	runs = Max(ROW_GET(Int64, &alarm, alarm_run_count), 0);
	do
	{
		CHECK_FOR_INTERRUPTS();
		missed = catch_up_is_missed(&start);
		if (!missed)
		{
			again = preview_add(preview, next);
			runs++;
		}
		if (!again || !start.recurring || start.lasting || start.no_grid != NULL ||
			!catch_up_next(&start, missed, runs, &next))
			return;

		/* unless they are counted, times that are not wanted are skipped */
		if (start.max_runs == 0 && next <= preview->after &&
			!calendar_next(&start.calendar, preview->after, &next))
			return;
		start.scheduled_at = next;
		start.started_at = Max(now, next);
		start.attempt = 1;
		start.late_from = DT_NOBEGIN;
	} while (!catch_up_is_over(next, start.until, runs, start.max_runs));
}

PG_FUNCTION_INFO_V1(ts_next_runs);
Datum
ts_next_runs(PG_FUNCTION_ARGS)
{
	TimestampTz now = GetCurrentTimestamp();
	Preview		preview = {.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo};
	Calendar	calendar = {0};
	int			given = 0;

	if (!PG_ARGISNULL(NEXT_SPREAD))
		check_not_supported("spread");
	if (!PG_ARGISNULL(NEXT_EXCEPT_ON))
		check_not_supported("except_on");
	given += !PG_ARGISNULL(NEXT_SCHEDULE);
	given += !PG_ARGISNULL(NEXT_EVERY);
	given += !PG_ARGISNULL(NEXT_TASK_ID);
	if (given != 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("exactly one of schedule, every and task_id must be given"),
				 errhint("For example schedule => '0 9 * * mon-fri', every => '1 day', or task_id => 'a'.")));
	if (!PG_ARGISNULL(NEXT_RUN_AT) && PG_ARGISNULL(NEXT_EVERY))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("run_at can only be given with every")));
	if (!PG_ARGISNULL(NEXT_TIMEZONE) && !PG_ARGISNULL(NEXT_TASK_ID))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timezone cannot be given with task_id"),
				 errhint("A task has its own time zone.")));
	if (!PG_ARGISNULL(NEXT_OWNER) && PG_ARGISNULL(NEXT_TASK_ID))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("owner can only be given with task_id")));

	preview.n = PG_ARGISNULL(NEXT_N) ? DEFAULT_TIMES : PG_GETARG_INT32(NEXT_N);
	if (preview.n < 0 || preview.n > MAX_TIMES)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("n must be from 0 to %d", MAX_TIMES)));
	preview.after = now;
	if (!PG_ARGISNULL(NEXT_AFTER))
	{
		preview.after = PG_GETARG_TIMESTAMPTZ(NEXT_AFTER);
		if (TIMESTAMP_NOT_FINITE(preview.after))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("after must be finite")));
	}
	calendar.zone = zone_by_name(PG_ARGISNULL(NEXT_TIMEZONE) ? NULL :
								 text_to_cstring(PG_GETARG_TEXT_PP(NEXT_TIMEZONE)));
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);

	if (!PG_ARGISNULL(NEXT_TASK_ID))
	{
		ts_require_preload();
		if (PG_ARGISNULL(NEXT_AFTER))
			preview.after = DT_NOBEGIN; /* one that is due is to come, too */
		preview_task(&preview,
					 check_owner(PG_ARGISNULL(NEXT_OWNER) ? NULL :
								 NameStr(*PG_GETARG_NAME(NEXT_OWNER))),
					 PG_GETARG_TEXT_PP(NEXT_TASK_ID), now);
		return (Datum) 0;
	}

	if (!PG_ARGISNULL(NEXT_SCHEDULE))
	{
		char	   *schedule = text_to_cstring(PG_GETARG_TEXT_PP(NEXT_SCHEDULE));

		calendar.has_schedule = true;
		cron_check(schedule, &calendar.schedule,
				   psprintf("For a task, give its name as in next_runs(task_id => %s).",
							quote_literal_cstr(schedule)));
	}
	else
	{
		calendar.every = *PG_GETARG_INTERVAL_P(NEXT_EVERY);
		every_check(&calendar.every);
		calendar.anchor = preview.after;
		if (!PG_ARGISNULL(NEXT_RUN_AT))
		{
			calendar.anchor = PG_GETARG_TIMESTAMPTZ(NEXT_RUN_AT);
			check_run_at(calendar.anchor);
		}
	}
	preview_calendar(&preview, &calendar);
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(ts_describe);
Datum
ts_describe(PG_FUNCTION_ARGS)
{
	Cron		cron;
	char	   *schedule;
	pg_tz	   *zone;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("schedule must not be null"),
				 errhint("Give a cron expression, as in taskshed.describe('0 9 * * mon-fri').")));
	schedule = text_to_cstring(PG_GETARG_TEXT_PP(0));
	cron_check(schedule, &cron,
			   psprintf("For a task, use SELECT taskshed.describe(schedule, timezone) FROM taskshed.tasks WHERE task_id = %s.",
						quote_literal_cstr(schedule)));
	zone = zone_by_name(PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1)));
	PG_RETURN_TEXT_P(cstring_to_text(cron_describe(&cron, pg_get_timezone_name(zone),
												   zone_offsets(zone, GetCurrentTimestamp()))));
}

PG_FUNCTION_INFO_V1(ts_try_task);
Datum
ts_try_task(PG_FUNCTION_ARGS)
{
	Store	   *store;
	TaskRow		task;
	bool		found;
	Callback   *callback;
	Jsonb	   *kwargs;
	char	   *name;
	char	   *result;
	pg_tz	   *zone;

	ts_require_preload();
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();

	store = store_open(AccessShareLock);
	found = store_find_task(store, GetUserId(), PointerGetDatum(PG_GETARG_TEXT_PP(0)), &task);
	store_close(store, AccessShareLock);
	if (!found)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" has no task \"%s\"", GetUserNameFromId(GetUserId(), false),
						text_to_cstring(PG_GETARG_TEXT_PP(0))),
				 errhint("A task can be tried by its owner only; SET ROLE to it first.")));

	kwargs = DatumGetJsonbP(ROW_DATUM(&task, task_kwargs));
	name = TextDatumGetCString(ROW_DATUM(&task, task_callback));
	if (ROW_GET(Bool, &task, task_is_alias))
		name = alias_require(GetUserId(), name);
	on_failure_prepare(text_to_cstring(PG_GETARG_TEXT_PP(0)), GetUserId(), &name, &kwargs);
	callback = callback_prepare(name, kwargs);
	zone = pg_tzset(TextDatumGetCString(ROW_DATUM(&task, task_timezone)));
	result = call_here(callback, callback_bind(callback, kwargs, zone, false));
	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(result));
}
