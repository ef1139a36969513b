/*-------------------------------------------------------------------------
 *
 * add_task_params.h
 *		The parameters of add_task, in their order.
 *
 * They are keys in add_tasks and update_tasks as well.  The script declares them
 * in this order; their numbers in api.h and the table in spec.c are made from this
 * list.  Of a parameter that has a column nothing else is needed to keep it in the
 * task's row, as it was given, and to take it from there again.
 *
 * Some are for what is to come, since a function cannot be given more parameters
 * once others call it.  Whoever builds it replaces spec_check_not_supported.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */

/* there is deliberately no #ifndef here: who includes it says what ADD_TASK_PARAM is */

/*
 * number, name, type, the column of the task that has it as it was given (0 if
 * there is none), and the check of a value, which is not null, with its bounds
 */
ADD_TASK_PARAM(ADD_CALLBACK, "callback", TEXTOID, Anum_task_callback)
ADD_TASK_PARAM(ADD_RUN_AT, "run_at", TIMESTAMPTZOID, 0, spec_check_run_at)
ADD_TASK_PARAM(ADD_KWARGS, "kwargs", JSONBOID, Anum_task_kwargs)
ADD_TASK_PARAM(ADD_RUN_TYPE, "run_type", TEXTOID, 0, spec_check_word,.words = run_type_words)
ADD_TASK_PARAM(ADD_EVERY, "every", INTERVALOID, Anum_task_every)
ADD_TASK_PARAM(ADD_TASK_ID, "task_id", TEXTOID, Anum_task_task_id, spec_check_length, 1, MAX_ID_LENGTH)
ADD_TASK_PARAM(ADD_GROUP_ID, "group_id", TEXTOID, Anum_task_group_id, spec_check_length, 1, MAX_ID_LENGTH)
ADD_TASK_PARAM(ADD_PAUSED, "paused", BOOLOID, 0)
ADD_TASK_PARAM(ADD_CATCH_UP, "catch_up", TEXTOID, Anum_task_catch_up, spec_check_word,.words = catch_up_words)
ADD_TASK_PARAM(ADD_REPLACE_EXISTING, "replace_existing", BOOLOID, 0)
ADD_TASK_PARAM(ADD_SCHEDULE, "schedule", TEXTOID, Anum_task_schedule)
ADD_TASK_PARAM(ADD_TIMEZONE, "timezone", TEXTOID, 0)
ADD_TASK_PARAM(ADD_UNTIL, "until", TIMESTAMPTZOID, Anum_task_until)
ADD_TASK_PARAM(ADD_MAX_RUNS, "max_runs", INT4OID, Anum_task_max_runs, spec_check_at_least, 1)
ADD_TASK_PARAM(ADD_START_WITHIN, "start_within", INTERVALOID, Anum_task_start_within, spec_check_duration)
ADD_TASK_PARAM(ADD_TIMEOUT, "timeout", INTERVALOID, Anum_task_timeout, spec_check_duration)
ADD_TASK_PARAM(ADD_MAX_ATTEMPTS, "max_attempts", INT4OID, Anum_task_max_attempts, spec_check_at_least, 0)
ADD_TASK_PARAM(ADD_RETRY_DELAY, "retry_delay", INTERVALOID, Anum_task_retry_delay, spec_check_duration)
ADD_TASK_PARAM(ADD_RETRY_BACKOFF, "retry_backoff", FLOAT8OID, Anum_task_retry_backoff, spec_check_backoff)
ADD_TASK_PARAM(ADD_RETRY_MAX_DELAY, "retry_max_delay", INTERVALOID, Anum_task_retry_max_delay, spec_check_duration)
ADD_TASK_PARAM(ADD_HISTORY, "history", TEXTOID, Anum_task_history, spec_check_word,.words = history_words)
ADD_TASK_PARAM(ADD_OWNER, "owner", NAMEOID, 0)
ADD_TASK_PARAM(ADD_VALIDATE, "validate", BOOLOID, 0)
ADD_TASK_PARAM(ADD_QUEUE, "queue", TEXTOID, 0, spec_check_not_supported)
ADD_TASK_PARAM(ADD_QUEUE_KEY, "queue_key", TEXTOID, 0, spec_check_not_supported)
ADD_TASK_PARAM(ADD_PRIORITY, "priority", INT4OID, 0, spec_check_not_supported)
ADD_TASK_PARAM(ADD_AFTER, "after", TEXTARRAYOID, 0, spec_check_names)
ADD_TASK_PARAM(ADD_AFTER_GROUP, "after_group", TEXTOID, 0, spec_check_length, 1, MAX_ID_LENGTH)
ADD_TASK_PARAM(ADD_AFTER_STATUS, "after_status", TEXTOID, Anum_task_after_status, spec_check_word,.words = after_status_words)
ADD_TASK_PARAM(ADD_BEFORE, "before", TEXTARRAYOID, 0, spec_check_names)
ADD_TASK_PARAM(ADD_ON_FAILURE, "on_failure", TEXTOID, Anum_task_on_failure)
ADD_TASK_PARAM(ADD_NOTIFY, "notify", TEXTOID, Anum_task_notify, spec_check_channel)
ADD_TASK_PARAM(ADD_DEBOUNCE, "debounce", INTERVALOID, 0, spec_check_not_supported)
ADD_TASK_PARAM(ADD_DEBOUNCE_MAX, "debounce_max", INTERVALOID, 0, spec_check_not_supported)
ADD_TASK_PARAM(ADD_THROTTLE, "throttle", INTERVALOID, 0, spec_check_not_supported)
ADD_TASK_PARAM(ADD_SPREAD, "spread", INTERVALOID, 0, spec_check_not_supported)
ADD_TASK_PARAM(ADD_EXCEPT_ON, "except_on", TEXTOID, 0, spec_check_not_supported)
ADD_TASK_PARAM(ADD_SETTINGS, "settings", JSONBOID, Anum_task_settings)
ADD_TASK_PARAM(ADD_DESCRIPTION, "description", TEXTOID, Anum_task_description, spec_check_length, 0, 1000)
ADD_TASK_PARAM(ADD_KEEP, "keep", INTERVALOID, 0, spec_check_not_supported)
ADD_TASK_PARAM(ADD_OPTIONS, "options", JSONBOID, Anum_task_options, spec_check_options)
