/*-------------------------------------------------------------------------
 *
 * last_run.c
 *		What the alarm says of a task's last run.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/elog.h"

#include "run/run.h"

/* Fill in what the alarm says of the last run; sqlstate and message may be NULL. */
void
last_run_set(AlarmRow *alarm, RunStatus status, const char *sqlstate, const char *message)
{
	ROW_SET(Pointer, alarm, alarm_last_status, cstring_to_text(word_text(run_status_words, status)));
	if (sqlstate != NULL)
		ROW_SET(Pointer, alarm, alarm_last_sqlstate, cstring_to_text(sqlstate));
	else
		ROW_SET_NULL(alarm, alarm_last_sqlstate);
	if (message != NULL)
		ROW_SET(Pointer, alarm, alarm_last_error, failure_text(message));
	else
		ROW_SET_NULL(alarm, alarm_last_error);
}

/* Note in the alarm how a run has ended. */
void
last_run_note(AlarmRow *alarm, RunEnd *run)
{
	const RunStart *start = run->start;
	const ErrorData *error = run->error;

	ROW_SET(Int32, alarm, alarm_interruptions, 0);
	if (!start->extra)
		ROW_SET_NULL(alarm, alarm_restarts);
	ROW_SET_NULL(alarm, alarm_begun_at);
	ROW_SET(TimestampTz, alarm, alarm_last_run_at, start->started_at);
	if (error == NULL)
	{
		run->recovered = (start->recurring && ROW_GET(Int32, alarm, alarm_failures_in_row) > 0);
		ROW_SET(Int32, alarm, alarm_failures_in_row, 0);
		ROW_SET_NULL(alarm, alarm_close_failures);
	}
	last_run_set(alarm, run->status,
				 error != NULL ? unpack_sql_state(error->sqlerrcode) : NULL,
				 error != NULL ? error->message : NULL);
}
